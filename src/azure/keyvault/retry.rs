//! When to try again, and when to stop and with which error.
//!
//! Retries any future that ends in our [`Error`]. The Azure SDK's own retries are off, since they
//! sleep as long as a server asks, past every deadline.
//!
//! # Guarantees
//! No try starts after the deadline and no wait reaches it; the returned error carries the last
//! real cause.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::Instant;

use super::error::{Error, StopReason};

/// The limits of a request and of its retries.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryLimits {
    /// How long one try may take, from connecting to the last byte. After that it is retried.
    pub(super) request_timeout: Duration,
    pub(super) max_tries: u32,
    /// Before the second try; jitter at most doubles it. It doubles with each further try.
    pub(super) min_delay: Duration,
    /// The longest delay of our own choice, before jitter, which at most doubles it.
    pub(super) max_delay: Duration,
}

impl RetryLimits {
    /// The product's limits (docs/decisions.md#d7, and docs/reference/azure-provider.md#http for
    /// the order of magnitude).
    ///
    /// Six tries wait for 12 to 23 s, so that a fault of some seconds is bridged, and a lasting one
    /// is reported long before the kubelet's two minutes.
    pub(super) const PRODUCT: RetryLimits = RetryLimits {
        request_timeout: Duration::from_secs(10),
        max_tries: 6,
        min_delay: Duration::from_millis(500),
        max_delay: Duration::from_secs(4),
    };
}

/// What to do after a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    RetryAfter(Duration),
    /// Return the error as it is: another try cannot succeed.
    Fail,
    /// Stop although another try might succeed.
    GiveUp(StopReason),
}

/// `delay` is our own choice, `None` after the last try; `left` is the time to the deadline.
pub(super) fn decide(error: &Error, delay: Option<Duration>, left: Duration) -> Decision {
    if !error.is_transient() {
        return Decision::Fail;
    }
    let Some(delay) = delay else {
        return Decision::GiveUp(StopReason::Tries);
    };
    match error.retry_after() {
        Some(asked) if asked.max(delay) >= left => Decision::GiveUp(StopReason::RetryAfter(asked)),
        Some(asked) => Decision::RetryAfter(asked.max(delay)),
        None if delay >= left => Decision::GiveUp(StopReason::Deadline),
        None => Decision::RetryAfter(delay),
    }
}

/// Runs `attempt` until it succeeds, fails for good, or exceeds the limits or the deadline.
///
/// # Errors
/// The attempt's error as it is, if another try cannot succeed; or else [`Error::GaveUp`] with the
/// last one. A try that the deadline cuts off has no error of its own: the one before it counts, or
/// else that `host` did not answer.
pub(super) async fn until<T, F>(
    deadline: Instant,
    limits: RetryLimits,
    host: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let started = Instant::now();
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(limits.min_delay)
        .with_max_delay(limits.max_delay)
        .with_factor(2.0)
        .with_max_times(limits.max_tries.saturating_sub(1) as usize)
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
                let no_response = || Error::NoResponse { host: host.to_owned(), limit: started.elapsed() };
                return Err(gave_up(StopReason::Deadline, last.unwrap_or_else(no_response)));
            }
        };
        match decide(&error, delays.next(), deadline.saturating_duration_since(Instant::now())) {
            Decision::RetryAfter(delay) => tokio::time::sleep(delay).await,
            Decision::Fail => return Err(error),
            Decision::GiveUp(stop) => return Err(gave_up(stop, error)),
        }
        last = Some(error);
    }
}
