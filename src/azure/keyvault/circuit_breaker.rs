//! Pure. When one vault may be sent a request: at its rate, or as a probe during a backoff; the
//! clock is an argument.
//!
//! Neither waits nor sends: `vault_queue` has the waiters and reports what the vault answers.
//!
//! # Guarantees
//! While the vault's own Retry-After runs, and while the circuit is open, one request a
//! [`PROBE_INTERVAL`] is sent in all. The requests that waited meanwhile are sent at the steady
//! rate afterwards, not in a burst.

use std::time::Duration;

use tokio::time::Instant;

use super::rate_limit::{Rate, TokenBucket};

/// How often a vault is probed during a backoff.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The backoff after a 429 without Retry-After.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest Retry-After that is kept: a day would be a fault of the vault.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// How many consecutive failures, over how long, open the circuit: more than one broken connection
/// causes.
const FAILURE_THRESHOLD: u32 = 20;
const FAILURE_PERIOD: Duration = Duration::from_secs(3);

/// How long an unused vault whose last requests failed is kept: most often there is no such vault.
const FAILED_EXPIRY: Duration = Duration::from_secs(600);

/// How a request to a vault ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Observation {
    /// The vault answered, be it with a refusal.
    Answered,
    /// 429, with its Retry-After.
    Throttled(Option<Duration>),
    /// A fault of the vault or of the network.
    Failed,
}

/// Why requests to a vault are paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backoff {
    /// The vault asked for it, until then.
    RetryAfter(Instant),
    /// The vault keeps failing; open since then.
    CircuitOpen(Instant),
}

/// The rate limit and the backoff of one vault.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    bucket: TokenBucket,
    backoff: Option<Backoff>,
    /// When the next probe may be sent, during a backoff.
    next_probe: Instant,
    /// When a request was last sent or answered.
    last_used: Instant,
    /// How many failures came in a row, and since when.
    failures: u32,
    failing_since: Instant,
}

impl CircuitBreaker {
    pub(super) fn new(rate: Rate, now: Instant) -> CircuitBreaker {
        CircuitBreaker {
            bucket: TokenBucket::new(rate, now),
            backoff: None,
            next_probe: now,
            last_used: now,
            failures: 0,
            failing_since: now,
        }
    }

    /// Permits one request.
    ///
    /// # Errors
    /// When to try again.
    pub(super) fn try_acquire(&mut self, now: Instant) -> Result<(), Instant> {
        self.last_used = self.last_used.max(now);
        if self.backoff(now).is_none() {
            return self.bucket.try_acquire(now);
        }
        if now < self.next_probe {
            return Err(self.next_probe);
        }
        self.next_probe = now + PROBE_INTERVAL;
        Ok(())
    }

    pub(super) fn observe(&mut self, observation: Observation, now: Instant) {
        self.last_used = self.last_used.max(now);
        match observation {
            Observation::Answered => {
                self.failures = 0;
                if matches!(self.backoff, Some(Backoff::CircuitOpen(_))) {
                    self.close(now);
                }
            }
            Observation::Throttled(retry_after) => {
                self.failures = 0;
                let until = now + retry_after.unwrap_or(DEFAULT_RETRY_AFTER).min(MAX_RETRY_AFTER);
                let until = match self.backoff(now) {
                    Some(Backoff::RetryAfter(before)) => before.max(until),
                    Some(Backoff::CircuitOpen(_)) | None => {
                        self.next_probe = now + PROBE_INTERVAL;
                        until
                    }
                };
                self.backoff = Some(Backoff::RetryAfter(until));
            }
            Observation::Failed => {
                if self.failures == 0 {
                    self.failing_since = now;
                }
                self.failures += 1;
                let lasting = self.failures >= FAILURE_THRESHOLD && now >= self.failing_since + FAILURE_PERIOD;
                if lasting && self.backoff(now).is_none() {
                    (self.backoff, self.next_probe) = (Some(Backoff::CircuitOpen(now)), now + PROBE_INTERVAL);
                }
            }
        }
    }

    /// Why requests are paused; `None` while they are not.
    pub(super) fn backoff(&mut self, now: Instant) -> Option<Backoff> {
        if matches!(self.backoff, Some(Backoff::RetryAfter(until)) if until <= now) {
            self.close(now);
        }
        self.backoff
    }

    /// Whether a new circuit breaker would decide the same.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let healthy = self.backoff(now).is_none() && self.failures == 0;
        now >= self.last_used + if healthy { self.bucket.refill_time() } else { FAILED_EXPIRY }
    }

    fn close(&mut self, now: Instant) {
        (self.backoff, self.failures) = (None, 0);
        self.bucket.drain(now);
    }
}
