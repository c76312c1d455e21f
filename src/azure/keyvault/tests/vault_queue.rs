//! The rate of requests to a vault: bucket and circuit breaker with a clock of our own, the queue
//! with the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::circuit_breaker::{Backoff, CircuitBreaker, Observation, PROBE_INTERVAL};
use super::super::connection_fault::ConnectionFault;
use super::super::endpoint::Service;
use super::super::error::Error;
use super::super::priority::Priority;
use super::super::rate_limit::Rate;
use super::super::vault_queue::VaultQueues;
use super::server::{Azure, Kind, QUICK, VAULT, open, options, status, with_options};
use super::{Reason, get_at_once};
use crate::model::Purpose;
use crate::server::metrics::{Exposition, FetchMetrics};

const RATE: Rate = Rate { per_second: 100, burst: 64 };

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// When requests are sent, in milliseconds from `start`, if some always wait.
fn sent(breaker: &mut CircuitBreaker, start: Instant, from: u64, to: u64) -> Vec<u64> {
    let sent = (from..to).flat_map(|at| {
        std::iter::from_fn({
            let breaker = &mut *breaker;
            move || breaker.try_acquire(start + milliseconds(at)).is_ok().then_some(at)
        })
        .collect::<Vec<_>>()
    });
    sent.collect()
}

#[test]
fn a_burst_is_sent_and_then_a_steady_stream() {
    let start = Instant::now();
    let mut breaker = CircuitBreaker::new(RATE, start);
    let times = sent(&mut breaker, start, 0, 1_000);
    assert_eq!(times.iter().filter(|at| **at == 0).count(), 64);
    assert!((times.len() as i64 - 64 - 99).abs() <= 1, "{}", times.len());
    // A pause fills the bucket, and no more.
    let times = sent(&mut breaker, start, 60_000, 60_001);
    assert_eq!(times.len(), 64);
}

#[test]
fn a_bucket_says_when_to_try_again() {
    let start = Instant::now();
    let mut breaker = CircuitBreaker::new(Rate { per_second: 10, burst: 1 }, start);
    assert!(breaker.try_acquire(start).is_ok());
    let next = breaker.try_acquire(start).unwrap_err();
    assert!(next > start + milliseconds(99) && next < start + milliseconds(105), "{:?}", next - start);
    assert!(breaker.try_acquire(next).is_ok());
}

#[test]
fn no_rate_is_no_limit() {
    let start = Instant::now();
    let mut breaker = CircuitBreaker::new(Rate { per_second: 0, burst: 0 }, start);
    assert!((0..10_000).all(|_| breaker.try_acquire(start).is_ok()));
}

#[test]
fn a_throttling_vault_is_probed_once_a_second_until_its_retry_after() {
    let start = Instant::now();
    let mut breaker = CircuitBreaker::new(RATE, start);
    assert!(breaker.try_acquire(start).is_ok());
    breaker.observe(Observation::Throttled(Some(Duration::from_secs(5))), start);
    // An answer meanwhile does not shorten Retry-After.
    let times = sent(&mut breaker, start, 0, 2_500);
    assert_eq!(times, [1_000, 2_000]);
    breaker.observe(Observation::Answered, start + milliseconds(2_500));
    assert_eq!(sent(&mut breaker, start, 2_500, 5_000), [3_000, 4_000]);
    // Requests that waited are sent at the steady rate.
    let after = sent(&mut breaker, start, 5_000, 6_000);
    assert!(after.iter().filter(|at| **at == 5_000).count() <= 1, "{after:?}");
    assert!((95..=101).contains(&after.len()), "{}", after.len());
}

#[test]
fn a_later_retry_after_never_shortens_the_backoff() {
    let start = Instant::now();
    let mut breaker = CircuitBreaker::new(RATE, start);
    breaker.observe(Observation::Throttled(Some(Duration::from_secs(10))), start);
    breaker.observe(Observation::Throttled(Some(Duration::from_secs(1))), start + PROBE_INTERVAL);
    assert_eq!(breaker.backoff(start + PROBE_INTERVAL), Some(Backoff::RetryAfter(start + Duration::from_secs(10))));
    breaker.observe(Observation::Throttled(None), start + Duration::from_secs(9));
    assert_eq!(
        breaker.backoff(start + Duration::from_secs(9)),
        Some(Backoff::RetryAfter(start + Duration::from_secs(10)))
    );
    breaker.observe(Observation::Throttled(Some(Duration::from_secs(86_400))), start + Duration::from_secs(9));
    assert_eq!(breaker.backoff(start + Duration::from_secs(130)), None, "a day is cut");
}

#[test]
fn a_failing_vault_is_probed_once_a_second_until_it_answers() {
    let start = Instant::now();
    let mut breaker = CircuitBreaker::new(RATE, start);
    // One broken connection fails many requests, which does not suffice.
    (0..60).for_each(|_| breaker.observe(Observation::Failed, start));
    assert_eq!(breaker.backoff(start), None);
    let later = start + Duration::from_secs(3);
    breaker.observe(Observation::Failed, later);
    assert_eq!(breaker.backoff(later), Some(Backoff::CircuitOpen(later)));
    assert_eq!(sent(&mut breaker, later, 0, 3_000), [1_000, 2_000]);
    breaker.observe(Observation::Answered, later + Duration::from_secs(3));
    assert_eq!(breaker.backoff(later + Duration::from_secs(3)), None);
    assert!(sent(&mut breaker, later, 3_000, 3_500).len() <= 51);
}

proptest! {
    /// Whatever the vault answers: no second has more requests than burst and rate allow, and one
    /// in a backoff.
    #[test]
    fn no_second_exceeds_the_budget(observed in prop::collection::vec((0u64..5_000, 0u8..4, 0u64..4), 0..40)) {
        let start = Instant::now();
        let mut breaker = CircuitBreaker::new(RATE, start);
        let mut observed = observed;
        observed.sort();
        let (mut times, mut quiet, mut at) = (Vec::new(), Vec::new(), 0);
        for (when, what, seconds) in observed {
            times.extend(sent(&mut breaker, start, at, when));
            at = when;
            let now = start + milliseconds(when);
            match what {
                0 => breaker.observe(Observation::Answered, now),
                1 => {
                    breaker.observe(Observation::Throttled(Some(Duration::from_secs(seconds))), now);
                    quiet.push((when, when + seconds * 1_000));
                }
                _ => breaker.observe(Observation::Failed, now),
            }
        }
        for &first in &times {
            let within = times.iter().filter(|at| (first..first + 1_000).contains(*at)).count();
            prop_assert!(within <= 64 + 101, "{within} in the second from {first}");
        }
        for (from, to) in quiet {
            let within = times.iter().filter(|at| (from..to).contains(*at)).count() as u64;
            prop_assert!(within <= (to - from) / 1_000, "{within} between {from} and {to}");
        }
    }
}

/// From the first failure to the first answer, with the real queue, over real HTTPS.
#[tokio::test]
async fn requests_to_a_failing_vault_are_paused_and_then_sent_steadily() {
    let well = Arc::new(AtomicBool::new(false));
    let answers = well.clone();
    // When the vault answers for the first time, as the vault sees it: a busy machine notices
    // later.
    let answered = Arc::new(std::sync::OnceLock::new());
    let first = answered.clone();
    let azure = Azure::start(move |request, _| {
        let fails = request.kind == Kind::Get && !answers.load(Ordering::SeqCst);
        if request.kind == Kind::Get && !fails {
            first.get_or_init(Instant::now);
        }
        fails.then(|| status(503, "{}")).flatten()
    })
    .await;
    let vaults = with_options(azure.client(), QUICK, super::super::Options { rate: RATE, ..options() });
    let vault = open(&vaults, "myvault", Duration::from_secs(60));
    let began = Instant::now();
    // Requests fail until the circuit opens, which shows in the requests of the last second.
    let quiet = loop {
        let before = azure.count(Kind::Get);
        let errors = tokio::time::timeout(Duration::from_secs(1), get_at_once(&vault, 4)).await;
        assert!(errors.is_err() || errors.iter().flatten().all(Result::is_err));
        if errors.is_err() && azure.count(Kind::Get) - before <= 2 {
            break azure.count(Kind::Get);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the circuit never opens");
    };
    // While many requests wait, one a second is sent.
    let crowd = tokio::spawn({
        let vault = vault.clone();
        async move { get_at_once(&vault, 150).await }
    });
    let (waiting, late) = (Instant::now(), Instant::now() + Duration::from_secs(20));
    while azure.count(Kind::Get) < quiet + 4 {
        assert!(Instant::now() < late, "no request is sent");
        tokio::time::sleep(milliseconds(5)).await;
    }
    // The first of the four may be sent at once.
    assert!(waiting.elapsed() >= milliseconds(2_800), "{:?} for four", waiting.elapsed());
    assert!(!crowd.is_finished());
    let held = azure.count(Kind::Get);
    well.store(true, Ordering::SeqCst);
    while azure.count(Kind::Get) == held {
        assert!(Instant::now() < late, "no request is sent any more");
        tokio::time::sleep(milliseconds(5)).await;
    }
    let results = crowd.await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    // A hundred a second and no burst, which would take less than a second.
    let took = answered.get().unwrap().elapsed();
    assert!(took >= milliseconds(1_300), "{took:?}");
}

fn fault() -> Result<(), Error> {
    let host = VAULT.to_owned();
    Err(Error::Unreachable { service: Service::KeyVault, host, fault: ConnectionFault::CutOff, proxied: false })
}

#[tokio::test]
async fn waiters_get_their_turn_in_order_and_cancelled_ones_take_none() {
    let queue =
        VaultQueues::new(Rate { per_second: 5, burst: 1 }, FetchMetrics::register(&mut Exposition::new())).queue(VAULT);
    let late = Instant::now() + Duration::from_secs(60);
    queue.acquire(late).await.unwrap();
    let began = Instant::now();
    // Cancelled at once. If they took turns, the others would wait for another twenty seconds.
    let gone = (0..100).map(|_| queue.acquire(Instant::now()));
    assert!(futures::future::join_all(gone).await.iter().all(Result::is_err));
    let order = std::sync::Mutex::new(Vec::new());
    let waiting = (0..5).map(|number| {
        let (queue, order) = (queue.clone(), &order);
        async move {
            queue.acquire(late).await.unwrap();
            order.lock().unwrap().push(number);
        }
    });
    futures::future::join_all(waiting).await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    let took = began.elapsed();
    assert!(took >= milliseconds(800) && took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn a_mount_goes_before_the_refreshes_that_wait() {
    let queue = VaultQueues::new(Rate { per_second: 50, burst: 1 }, FetchMetrics::register(&mut Exposition::new()))
        .queue(VAULT);
    let late = Instant::now() + Duration::from_secs(60);
    queue.acquire(late).await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    let joined = Priority::of(Purpose::Refresh);
    let waiting = (0..6).map(|number| {
        let priority = if number == 2 { joined.clone() } else { Priority::of(Purpose::Refresh) };
        let priority = if number >= 4 { Priority::of(Purpose::Mount) } else { priority };
        let (queue, order) = (queue.clone().with_priority(priority), &order);
        async move {
            queue.acquire(late).await.unwrap();
            order.lock().unwrap().push(number);
        }
    });
    let all = futures::future::join_all(waiting);
    tokio::pin!(all);
    assert!(futures::poll!(&mut all).is_pending());
    // A mount joins this fetch.
    joined.raise_to(&Priority::of(Purpose::Mount));
    all.await;
    assert_eq!(*order.lock().unwrap(), [2, 4, 5, 0, 1, 3]);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_not_started() {
    let queue = VaultQueues::new(RATE, FetchMetrics::register(&mut Exposition::new())).queue(VAULT);
    let soon = Instant::now() + Duration::from_secs(20);
    let azure = Azure::start(|request, _| {
        (request.kind == Kind::Get).then(|| super::server::Answer::Status(429, "retry-after: 30\r\n", "{}".into()))
    })
    .await;
    let vaults = with_options(azure.client(), QUICK, options());
    let error = super::get(&open(&vaults, "myvault", Duration::from_secs(20)), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Throttled);
    // The next request is not sent.
    let before = azure.count(Kind::Get);
    let error = super::get(&open(&vaults, "myvault", Duration::from_secs(20)), "other").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Throttled);
    assert!(matches!(error, Error::QueueTimeout { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("429") && text.contains(VAULT), "{text}");
    assert_eq!(azure.count(Kind::Get), before);
    // Another vault has a queue of its own.
    assert!(queue.acquire(soon).await.is_ok());
}

#[tokio::test]
async fn an_error_of_a_full_queue_names_the_budget() {
    let queue =
        VaultQueues::new(Rate { per_second: 1, burst: 1 }, FetchMetrics::register(&mut Exposition::new())).queue(VAULT);
    queue.acquire(Instant::now() + milliseconds(10)).await.unwrap();
    let error = queue.acquire(Instant::now() + milliseconds(10)).await.unwrap_err();
    assert!(error.to_string().contains("--vault-requests-per-second"), "{error}");
    queue.record(&fault());
    let error = queue.acquire(Instant::now() + milliseconds(10)).await.unwrap_err();
    assert!(error.to_string().contains("broke before the answer"), "{error}");
}

#[tokio::test]
async fn each_request_to_a_vault_waits_in_its_queue() {
    let azure = Azure::start(|request, _| (request.kind == Kind::Get).then(|| status(404, "{}")).flatten()).await;
    let rate = Rate { per_second: 20, burst: 1 };
    let vaults = with_options(azure.client(), QUICK, super::super::Options { rate, ..options() });
    let began = Instant::now();
    // One challenge and ten gets: eleven requests, the first of them at once.
    let _ = get_at_once(&open(&vaults, "myvault", Duration::from_secs(60)), 10).await;
    assert_eq!(azure.counts(), [1, 1, 10]);
    assert!(began.elapsed() >= milliseconds(490), "{:?}", began.elapsed());
}
