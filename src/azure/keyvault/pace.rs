//! Pure. How fast one vault may be asked: a budget, less while it throttles, less while it fails.
//!
//! A bucket of requests that fills at a steady rate; the clock is an argument. Nothing waits or sends here, and nobody is
//! named. Control comes from `budget`, which has the queue.
//!
//! # Guarantees
//! While the vault's own Retry-After runs, and while nothing but failures comes back, it is asked once a [`PROBE`] in all. What
//! was held back meanwhile goes out at the steady rate afterwards, not in a burst.

use std::time::Duration;

use tokio::time::Instant;

/// How often a vault is asked that wants to be left alone.
pub(super) const PROBE: Duration = Duration::from_secs(1);

/// For how long a vault is left alone that throttles without saying for how long.
const UNSAID: Duration = Duration::from_secs(1);

/// For how long a vault is left alone at most, whatever it says: a day would be a fault of its own.
const LONGEST: Duration = Duration::from_secs(120);

/// How many failures in a row, over how long, make a vault one that fails: more than one broken connection can hold.
const FAILURES: u32 = 20;
const FAILING: Duration = Duration::from_secs(3);

/// After how long a vault that was left failing is forgotten: most often it never was one.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// How fast a vault may be asked when all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second; 0 is no limit.
    pub per_second: u32,
    /// How many requests may go at once after a rest.
    pub burst: u32,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// An answer of the vault's own, also an unwelcome one.
    Answer,
    /// 429, with the time that the vault asks for.
    Throttle(Option<Duration>),
    /// A fault of the vault or of the way to it.
    Failure,
}

/// Why a vault is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restraint {
    /// It asked for that, until then.
    Asked(Instant),
    /// It only fails, since then.
    Failing(Instant),
}

/// One vault's bucket.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// How many requests may go now, as of `at`.
    level: f64,
    at: Instant,
    restraint: Option<Restraint>,
    /// When the next request may go, under restraint.
    next: Instant,
    /// When something last came back or went out.
    heard: Instant,
    /// How many failures came in a row, and since when.
    failures: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new(rate: Rate, now: Instant) -> Pace {
        let level = f64::from(rate.burst);
        Pace { rate, level, at: now, restraint: None, next: now, heard: now, failures: 0, since: now }
    }

    /// Takes a request out of the bucket, or says when to ask again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.heard = self.heard.max(now);
        if self.restraint(now).is_some() {
            if now < self.next {
                return Err(self.next);
            }
            self.next = now + PROBE;
            return Ok(());
        }
        if self.rate.per_second == 0 {
            return Ok(());
        }
        let rate = f64::from(self.rate.per_second);
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.level = (self.level + grown).min(f64::from(self.rate.burst.max(1)));
        self.at = self.at.max(now);
        if self.level < 1.0 {
            // A millisecond more than it takes, lest rounding makes the caller come too early.
            return Err(now + Duration::from_secs_f64((1.0 - self.level) / rate) + Duration::from_millis(1));
        }
        self.level -= 1.0;
        Ok(())
    }

    /// Learns from what came back.
    pub(super) fn learn(&mut self, came: Came, now: Instant) {
        self.heard = self.heard.max(now);
        match came {
            Came::Answer => {
                self.failures = 0;
                if matches!(self.restraint, Some(Restraint::Failing(_))) {
                    self.release(now);
                }
            }
            Came::Throttle(asked) => {
                self.failures = 0;
                let until = now + asked.unwrap_or(UNSAID).min(LONGEST);
                let until = match self.restraint(now) {
                    Some(Restraint::Asked(before)) => before.max(until),
                    Some(Restraint::Failing(_)) | None => {
                        self.next = now + PROBE;
                        until
                    }
                };
                self.restraint = Some(Restraint::Asked(until));
            }
            Came::Failure => {
                if self.failures == 0 {
                    self.since = now;
                }
                self.failures += 1;
                if self.failures >= FAILURES && now >= self.since + FAILING && self.restraint(now).is_none() {
                    (self.restraint, self.next) = (Some(Restraint::Failing(now)), now + PROBE);
                }
            }
        }
    }

    /// Why the vault is left alone, if it is.
    pub(super) fn restraint(&mut self, now: Instant) -> Option<Restraint> {
        if matches!(self.restraint, Some(Restraint::Asked(until)) if until <= now) {
            self.release(now);
        }
        self.restraint
    }

    /// Whether nothing would be lost by forgetting this vault.
    pub(super) fn is_rested(&mut self, now: Instant) -> bool {
        let full = f64::from(self.rate.burst) / f64::from(self.rate.per_second.max(1));
        let well = self.restraint(now).is_none() && self.failures == 0;
        now >= self.heard + if well { Duration::from_secs_f64(full) } else { FORGOTTEN }
    }

    fn release(&mut self, now: Instant) {
        (self.restraint, self.failures) = (None, 0);
        (self.level, self.at) = (0.0, now);
    }
}
