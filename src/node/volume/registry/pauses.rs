//! Pure. Whether the process did not run for a while: it was stopped, or its machine was suspended.
//!
//! Meanwhile the kubelet could bring no credentials, and what was under way ran into its deadline. Neither is a fault
//! that is worth an event. So all volumes get one period of the kubelet's after a pause, in which it may bring what
//! it could not bring before.
//!
//! # Guarantees
//! A volume that the kubelet has stopped calling for loses its credentials all the same, one period after the last pause.

use std::time::Duration;

use tokio::time::Instant;

/// When the process last went on after a pause.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// When it was last seen running, as time since boot, which goes on while it does not.
    seen: Option<Duration>,
    resumed: Option<Instant>,
}

impl Pauses {
    /// Notes that the process runs at this moment; returns for how long it did not, if that was a pause.
    ///
    /// A gap counts from `least` on: shorter ones are covered by the periods that credentials are kept for.
    pub(super) fn running(&mut self, now: Instant, since_boot: Duration, least: Duration) -> Option<Duration> {
        let seen = self.seen.replace(since_boot)?;
        let gap = since_boot.checked_sub(seen).filter(|gap| *gap >= least)?;
        self.resumed = Some(now);
        Some(gap)
    }

    /// Whether a pause ended after this moment.
    pub(super) fn since(&self, moment: Instant) -> bool {
        self.resumed.is_some_and(|resumed| resumed > moment)
    }

    /// Whether credentials of this moment are from before a pause that ended less than a period ago.
    pub(super) fn excuse(&self, received: Instant, now: Instant, period: Duration) -> bool {
        self.resumed.is_some_and(|resumed| resumed > received && now < resumed + period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(90);

    #[test]
    fn a_gap_of_a_period_is_a_pause_and_a_shorter_one_is_not() {
        let (mut pauses, start, boot) = (Pauses::default(), Instant::now(), Duration::from_secs(1_000));
        assert_eq!(pauses.running(start, boot, PERIOD), None, "the first time says nothing");
        let short = PERIOD - Duration::from_millis(1);
        assert_eq!(pauses.running(start + short, boot + short, PERIOD), None);
        assert!(!pauses.since(start) && !pauses.excuse(start, start + short, PERIOD));
        let (now, boot) = (start + short + 4 * PERIOD, boot + short + 4 * PERIOD);
        assert_eq!(pauses.running(now, boot, PERIOD), Some(4 * PERIOD), "stopped");
        assert!(pauses.since(start) && !pauses.since(now));
        assert!(pauses.excuse(start, now, PERIOD));
        assert!(pauses.excuse(start, now + PERIOD - Duration::from_millis(1), PERIOD));
        assert!(!pauses.excuse(start, now + PERIOD, PERIOD), "one period, and no more");
        assert!(!pauses.excuse(now, now, PERIOD), "what came afterwards is as any other");
    }

    #[test]
    fn a_machine_that_was_suspended_shows_in_the_time_since_boot_alone() {
        let (mut pauses, start, boot) = (Pauses::default(), Instant::now(), Duration::from_secs(1_000));
        pauses.running(start, boot, PERIOD);
        let now = start + Duration::from_secs(1);
        assert_eq!(pauses.running(now, boot + Duration::from_secs(3_601), PERIOD), Some(Duration::from_secs(3_601)));
        assert!(pauses.excuse(start, now, PERIOD));
    }

    #[test]
    fn a_clock_that_goes_back_is_no_pause() {
        let (mut pauses, start, boot) = (Pauses::default(), Instant::now(), Duration::from_secs(1_000));
        pauses.running(start, boot, PERIOD);
        assert_eq!(pauses.running(start, boot - Duration::from_secs(500), PERIOD), None);
        assert_eq!(pauses.running(start, boot - Duration::from_secs(499), PERIOD), None);
    }
}
