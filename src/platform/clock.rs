//! A clock that advances while the machine is suspended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot, including suspension (`CLOCK_BOOTTIME`).
///
/// [`Instant`](std::time::Instant) excludes suspension, and the wall clock can be set.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
