//! How often rotation refreshes volumes, and how long the registry keeps credentials.

use std::time::Duration;

/// After how many of the kubelet's periods without a renewal credentials expire.
const PERIODS: u32 = 3;

/// The limits of the time between two sweeps.
const SWEEPS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// How rotation works.
#[derive(Debug, Clone, Copy)]
pub struct RotationOptions {
    /// The time between two fetches for a class without an interval of its own.
    pub interval: Duration,
    /// The longest time between two calls of the kubelet for one volume, each with new credentials.
    pub republish: Duration,
}

impl RotationOptions {
    /// How long credentials are kept without a renewal.
    pub(super) fn credentials_lifetime(&self) -> Duration {
        self.republish.saturating_mul(PERIODS)
    }

    /// The time between two sweeps; each also records that the process runs.
    pub(in crate::node) fn sweep(&self) -> Duration {
        (self.republish / PERIODS).clamp(SWEEPS[0], SWEEPS[1])
    }

    /// The shortest gap between two sweeps that counts as a pause of the process. The lifetime of
    /// credentials covers gaps of less than a period.
    pub(super) fn pause(&self) -> Duration {
        self.republish.max(self.sweep() * PERIODS)
    }
}
