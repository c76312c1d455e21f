//! Pure. Detects pauses of the process: it was stopped, or its machine was suspended.
//!
//! During a pause the kubelet cannot deliver credentials, and running requests miss their
//! deadlines. Neither deserves an event. After a pause, all volumes therefore get one period of the
//! kubelet's calls as grace.
//!
//! # Guarantees
//! If the kubelet no longer calls for a volume, its credentials expire all the same: at the latest,
//! one period after the last pause.

use std::time::Duration;

use tokio::time::Instant;

/// The end of the last pause.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// When the process last ran, as time since boot, which also counts during a suspend.
    last_seen: Option<Duration>,
    resumed: Option<Instant>,
}

impl Pauses {
    /// Records that the process runs now; returns the length of the pause that ends now, if any.
    ///
    /// A gap shorter than `shortest` is not a pause: the lifetime of credentials covers it.
    pub(super) fn record_running(
        &mut self,
        now: Instant,
        since_boot: Duration,
        shortest: Duration,
    ) -> Option<Duration> {
        let last_seen = self.last_seen.replace(since_boot)?;
        let gap = since_boot.checked_sub(last_seen).filter(|gap| *gap >= shortest)?;
        self.resumed = Some(now);
        Some(gap)
    }

    /// Whether a pause ended after this moment.
    pub(super) fn ended_after(&self, moment: Instant) -> bool {
        self.resumed.is_some_and(|resumed| resumed > moment)
    }

    /// Whether a pause that ended after `received`, and less than a period ago, gives grace.
    pub(super) fn has_grace(&self, received: Instant, now: Instant, period: Duration) -> bool {
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
        assert_eq!(pauses.record_running(start, boot, PERIOD), None, "there is no earlier time");
        let short = PERIOD - Duration::from_millis(1);
        assert_eq!(pauses.record_running(start + short, boot + short, PERIOD), None);
        assert!(!pauses.ended_after(start) && !pauses.has_grace(start, start + short, PERIOD));
        let (now, boot) = (start + short + 4 * PERIOD, boot + short + 4 * PERIOD);
        assert_eq!(pauses.record_running(now, boot, PERIOD), Some(4 * PERIOD), "the process was stopped");
        assert!(pauses.ended_after(start) && !pauses.ended_after(now));
        assert!(pauses.has_grace(start, now, PERIOD));
        assert!(pauses.has_grace(start, now + PERIOD - Duration::from_millis(1), PERIOD));
        assert!(!pauses.has_grace(start, now + PERIOD, PERIOD), "the grace is one period");
        assert!(!pauses.has_grace(now, now, PERIOD), "later credentials have no grace");
    }

    #[test]
    fn a_suspend_of_the_machine_shows_in_the_time_since_boot_alone() {
        let (mut pauses, start, boot) = (Pauses::default(), Instant::now(), Duration::from_secs(1_000));
        pauses.record_running(start, boot, PERIOD);
        let now = start + Duration::from_secs(1);
        assert_eq!(
            pauses.record_running(now, boot + Duration::from_secs(3_601), PERIOD),
            Some(Duration::from_secs(3_601))
        );
        assert!(pauses.has_grace(start, now, PERIOD));
    }

    #[test]
    fn a_clock_that_jumps_back_is_not_a_pause() {
        let (mut pauses, start, boot) = (Pauses::default(), Instant::now(), Duration::from_secs(1_000));
        pauses.record_running(start, boot, PERIOD);
        assert_eq!(pauses.record_running(start, boot - Duration::from_secs(500), PERIOD), None);
        assert_eq!(pauses.record_running(start, boot - Duration::from_secs(499), PERIOD), None);
    }
}
