//! Pauses before retries: exponential, with a limit and with jitter.
//!
//! Pure except [`jitter`]: callers pass the random part as an argument, between 0 and 1.

use std::time::Duration;

use crate::platform::process;

/// The pauses of one operation. They double from the first to the longest.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Before any failure.
    pub const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, failures: 0 }
    }

    /// Counts a failure; returns the pause after it, without jitter.
    pub fn next_exact(&mut self) -> Duration {
        let pause = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Counts a failure; returns the pause after it, up to twice as long by `jitter`, and never
    /// longer than the longest.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let pause = self.next_exact();
        (pause + pause.mul_f64(jitter.clamp(0.0, 1.0))).min(self.longest)
    }

    /// Whether the last try failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Starts again at the first pause.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Between 90 and 110 % of `period`, so that nodes that started together drift apart.
pub fn spread(period: Duration, jitter: f64) -> Duration {
    period.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
}

/// A random number between 0 and 1; 0.5 if the kernel has no randomness yet.
pub fn jitter() -> f64 {
    process::random_number().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_reset() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        let pauses = [0.0, 0.5, 0.0, 1.0, 0.0].map(|jitter| backoff.next(jitter));
        assert_eq!(pauses, [1, 3, 4, 5, 5].map(seconds));
        assert!(backoff.is_failing());
        backoff.reset();
        assert!(!backoff.is_failing());
        assert_eq!(backoff.next(1.0), seconds(2));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::MAX);
        let last = (0..100).map(|_| backoff.next_exact()).last();
        assert_eq!(last, Some(Duration::from_secs(5 << 16)));
    }
}
