//! When to try again, and when to stop and say why.
//!
//! Does not know what is tried: any future that ends in our [`Error`]. The Azure SDK's own retries are off, since they
//! sleep as long as a server asks, past every deadline. What comes of the tries goes back to `vault`.
//!
//! # Guarantees
//! No try starts after the deadline and no wait reaches it; the error that comes back carries the last real cause.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

use super::error::{Error, Stop};

/// The limits of one exchange and of its repetitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long one exchange may take, from connecting to the last byte. A hung one is tried again.
    pub(super) exchange: Duration,
    /// How often one request is sent at most.
    pub(super) tries: u32,
    /// The shortest wait between two tries; up to twice as long by jitter, and doubling.
    pub(super) first_wait: Duration,
    /// The longest wait that we choose ourselves, before jitter, which at most doubles it.
    pub(super) longest_wait: Duration,
}

impl Limits {
    /// What the product runs with (docs/decisions.md#d7, and docs/reference/azure-provider.md#http
    /// for the order of magnitude).
    ///
    /// Six tries take 12 to 23 s of waiting, so that a fault of some seconds is ridden out and a lasting one is
    /// reported long before the kubelet's two minutes.
    pub(super) const PRODUCT: Limits = Limits {
        exchange: Duration::from_secs(10),
        tries: 6,
        first_wait: Duration::from_millis(500),
        longest_wait: Duration::from_secs(4),
    };
}

/// What to do after a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Try again after this time.
    Again(Duration),
    /// Hand the error to the caller as it is: trying again cannot help.
    Fail,
    /// Stop although trying again might help.
    GiveUp(Stop),
}

/// Decides after a try that failed, from values alone.
///
/// `wait` is our own choice of a delay, `None` after the last try; `left` is the time to the deadline.
pub(super) fn decide(error: &Error, wait: Option<Duration>, left: Duration) -> Decision {
    if !error.is_transient() {
        return Decision::Fail;
    }
    let Some(wait) = wait else {
        return Decision::GiveUp(Stop::Tries);
    };
    match error.retry_after() {
        Some(asked) if asked.max(wait) >= left => Decision::GiveUp(Stop::AskedToWait(asked)),
        Some(asked) => Decision::Again(asked.max(wait)),
        None if wait >= left => Decision::GiveUp(Stop::Deadline),
        None => Decision::Again(wait),
    }
}

/// Runs `attempt` until it succeeds, fails for good, or limits and deadline end it.
///
/// # Errors
/// The attempt's error as it is, when trying again cannot help; else [`Error::GaveUp`] around the last one. A try that
/// the deadline cuts off has no cause of its own: the one before it counts, else that `host` did not answer.
pub(super) async fn until<T, F>(
    deadline: Instant,
    limits: Limits,
    host: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let started = Instant::now();
    let mut waits = ExponentialBuilder::new()
        .with_min_delay(limits.first_wait)
        .with_max_delay(limits.longest_wait)
        .with_factor(2.0)
        .with_max_times(limits.tries.saturating_sub(1) as usize)
        .with_jitter()
        .build();
    let mut last = None;
    let mut tries = 0;
    loop {
        tries += 1;
        let gave_up = |stop, last| Error::GaveUp { stop, tries, waited: started.elapsed(), last: Box::new(last) };
        let error = match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                let silent = || Error::NoAnswer { host: host.to_owned(), limit: started.elapsed() };
                return Err(gave_up(Stop::Deadline, last.unwrap_or_else(silent)));
            }
        };
        match decide(&error, waits.next(), deadline.saturating_duration_since(Instant::now())) {
            Decision::Again(wait) => tokio::time::sleep(wait).await,
            Decision::Fail => return Err(error),
            Decision::GiveUp(stop) => return Err(gave_up(stop, error)),
        }
        last = Some(error);
    }
}
