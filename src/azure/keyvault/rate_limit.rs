//! Pure. The rate limit of one vault: a token bucket with a steady rate and a burst; the clock is
//! an argument.
//!
//! Knows no backoff: `circuit_breaker` drains the bucket when one ends.

use std::time::Duration;

use tokio::time::Instant;

/// The budget of each vault on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second; 0 is no limit.
    pub per_second: u32,
    /// How many requests may be sent at once when the bucket is full.
    pub burst: u32,
}

#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: Rate,
    /// As of `updated`.
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: Instant) -> TokenBucket {
        TokenBucket { rate, tokens: f64::from(rate.burst), updated: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// When to try again.
    pub(super) fn try_acquire(&mut self, now: Instant) -> Result<(), Instant> {
        if self.rate.per_second == 0 {
            return Ok(());
        }
        let rate = f64::from(self.rate.per_second);
        let refilled = now.saturating_duration_since(self.updated).as_secs_f64() * rate;
        self.tokens = (self.tokens + refilled).min(f64::from(self.rate.burst.max(1)));
        self.updated = self.updated.max(now);
        if self.tokens < 1.0 {
            // One millisecond extra, or rounding lets the caller try too early.
            return Err(now + Duration::from_secs_f64((1.0 - self.tokens) / rate) + Duration::from_millis(1));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// Empties the bucket: requests that waited are then sent at the steady rate, not in a burst.
    pub(super) fn drain(&mut self, now: Instant) {
        (self.tokens, self.updated) = (0.0, now);
    }

    /// How long an empty bucket takes to fill.
    pub(super) fn refill_time(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.rate.burst) / f64::from(self.rate.per_second.max(1)))
    }
}
