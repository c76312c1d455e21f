//! Which repetitions of a problem are logged as warnings.
//!
//! Pure: the time is an argument. A retried operation fails again and again; the first failure of a
//! kind is a warning, the next ones are debug messages.

use std::time::{Duration, Instant};

/// The problem of one operation that was reported last.
#[derive(Debug, Clone)]
pub struct WarnOnce<T> {
    last_reported: Option<(T, Instant)>,
    again_after: Option<Duration>,
}

impl<T> Default for WarnOnce<T> {
    fn default() -> WarnOnce<T> {
        WarnOnce { last_reported: None, again_after: None }
    }
}

impl<T: PartialEq> WarnOnce<T> {
    /// Reports a problem again if it lasts for `period`.
    pub fn again_after(period: Duration) -> WarnOnce<T> {
        WarnOnce { last_reported: None, again_after: Some(period) }
    }

    /// Whether to warn: the problem differs from the one reported last, or that was long ago.
    pub fn should_warn(&mut self, problem: T, now: Instant) -> bool {
        let is_old = |at: Instant| self.again_after.is_some_and(|period| now.saturating_duration_since(at) >= period);
        let warn = self.last_reported.as_ref().is_none_or(|(last, at)| *last != problem || is_old(*at));
        if warn {
            self.last_reported = Some((problem, now));
        }
        warn
    }

    /// The operation works; returns whether a problem was reported.
    pub fn resolve(&mut self) -> bool {
        self.last_reported.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_again_if_it_changed_or_was_resolved() {
        let now = Instant::now();
        let mut warn_once = WarnOnce::default();
        let reported = ["a", "a", "b", "a"].map(|problem| warn_once.should_warn(problem, now));
        assert_eq!(reported, [true, false, true, true]);
        assert!(warn_once.resolve() && !warn_once.resolve());
        assert!(warn_once.should_warn("a", now));
    }

    #[test]
    fn a_lasting_problem_is_reported_again_after_the_period() {
        let (now, period) = (Instant::now(), Duration::from_secs(600));
        let mut warn_once = WarnOnce::again_after(period);
        assert!(warn_once.should_warn((), now));
        assert!(!warn_once.should_warn((), now + period / 2));
        assert!(warn_once.should_warn((), now + period));
    }
}
