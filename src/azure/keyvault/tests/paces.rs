//! How fast a vault is asked: the bucket by a clock of our own, the queue by the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::budget::Budget;
use super::super::error::{Error, Link, Service};
use super::super::pace::{Came, PROBE, Pace, Rate, Restraint};
use super::super::rank::{Purpose, Rank};
use super::server::{Azure, Kind, QUICK, VAULT, open, options, status, with_options};
use super::{Reason, get_at_once};
use crate::server::metrics::Metrics;

const RATE: Rate = Rate { per_second: 100, burst: 64 };

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// When requests go out, in milliseconds from `start`, if somebody wants to send all the time.
fn sent(pace: &mut Pace, start: Instant, from: u64, to: u64) -> Vec<u64> {
    let sent = (from..to).flat_map(|at| {
        std::iter::from_fn({
            let pace = &mut *pace;
            move || pace.take(start + milliseconds(at)).is_ok().then_some(at)
        })
        .collect::<Vec<_>>()
    });
    sent.collect()
}

#[test]
fn a_burst_goes_out_and_then_a_steady_stream() {
    let start = Instant::now();
    let mut pace = Pace::new(RATE, start);
    let times = sent(&mut pace, start, 0, 1_000);
    assert_eq!(times.iter().filter(|at| **at == 0).count(), 64);
    assert!((times.len() as i64 - 64 - 99).abs() <= 1, "{}", times.len());
    // A rest fills the bucket to the brim and no further.
    let times = sent(&mut pace, start, 60_000, 60_001);
    assert_eq!(times.len(), 64);
}

#[test]
fn a_bucket_tells_when_to_come_again() {
    let start = Instant::now();
    let mut pace = Pace::new(Rate { per_second: 10, burst: 1 }, start);
    assert!(pace.take(start).is_ok());
    let next = pace.take(start).unwrap_err();
    assert!(next > start + milliseconds(99) && next < start + milliseconds(105), "{:?}", next - start);
    assert!(pace.take(next).is_ok());
}

#[test]
fn no_rate_is_no_limit() {
    let start = Instant::now();
    let mut pace = Pace::new(Rate { per_second: 0, burst: 0 }, start);
    assert!((0..10_000).all(|_| pace.take(start).is_ok()));
}

#[test]
fn a_throttling_vault_is_asked_once_a_second_until_its_time_is_over() {
    let start = Instant::now();
    let mut pace = Pace::new(RATE, start);
    assert!(pace.take(start).is_ok());
    pace.learn(Came::Throttle(Some(Duration::from_secs(5))), start);
    // An answer in between does not shorten the time that the vault asked for.
    let times = sent(&mut pace, start, 0, 2_500);
    assert_eq!(times, [1_000, 2_000]);
    pace.learn(Came::Answer, start + milliseconds(2_500));
    assert_eq!(sent(&mut pace, start, 2_500, 5_000), [3_000, 4_000]);
    // What was held back goes out steadily.
    let after = sent(&mut pace, start, 5_000, 6_000);
    assert!(after.iter().filter(|at| **at == 5_000).count() <= 1, "{after:?}");
    assert!((95..=101).contains(&after.len()), "{}", after.len());
}

#[test]
fn a_later_throttle_lengthens_the_time_and_never_shortens_it() {
    let start = Instant::now();
    let mut pace = Pace::new(RATE, start);
    pace.learn(Came::Throttle(Some(Duration::from_secs(10))), start);
    pace.learn(Came::Throttle(Some(Duration::from_secs(1))), start + PROBE);
    assert_eq!(pace.restraint(start + PROBE), Some(Restraint::Asked(start + Duration::from_secs(10))));
    pace.learn(Came::Throttle(None), start + Duration::from_secs(9));
    assert_eq!(pace.restraint(start + Duration::from_secs(9)), Some(Restraint::Asked(start + Duration::from_secs(10))));
    pace.learn(Came::Throttle(Some(Duration::from_secs(86_400))), start + Duration::from_secs(9));
    assert_eq!(pace.restraint(start + Duration::from_secs(130)), None, "a day is not believed");
}

#[test]
fn a_vault_that_only_fails_is_asked_once_a_second_until_it_answers() {
    let start = Instant::now();
    let mut pace = Pace::new(RATE, start);
    // One broken connection takes many requests with it, and is no reason.
    (0..60).for_each(|_| pace.learn(Came::Failure, start));
    assert_eq!(pace.restraint(start), None);
    let later = start + Duration::from_secs(3);
    pace.learn(Came::Failure, later);
    assert_eq!(pace.restraint(later), Some(Restraint::Failing(later)));
    assert_eq!(sent(&mut pace, later, 0, 3_000), [1_000, 2_000]);
    pace.learn(Came::Answer, later + Duration::from_secs(3));
    assert_eq!(pace.restraint(later + Duration::from_secs(3)), None);
    assert!(sent(&mut pace, later, 3_000, 3_500).len() <= 51);
}

proptest! {
    /// Whatever comes back: within any second, no more goes out than burst and rate allow, and one under restraint.
    #[test]
    fn no_second_sees_more_than_the_budget(came in prop::collection::vec((0u64..5_000, 0u8..4, 0u64..4), 0..40)) {
        let start = Instant::now();
        let mut pace = Pace::new(RATE, start);
        let mut came = came;
        came.sort();
        let (mut times, mut quiet, mut at) = (Vec::new(), Vec::new(), 0);
        for (when, what, seconds) in came {
            times.extend(sent(&mut pace, start, at, when));
            at = when;
            let now = start + milliseconds(when);
            match what {
                0 => pace.learn(Came::Answer, now),
                1 => {
                    pace.learn(Came::Throttle(Some(Duration::from_secs(seconds))), now);
                    quiet.push((when, when + seconds * 1_000));
                }
                _ => pace.learn(Came::Failure, now),
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
async fn a_failing_vault_is_left_alone_and_then_served_steadily() {
    let well = Arc::new(AtomicBool::new(false));
    let answers = well.clone();
    let azure = Azure::start(move |request, _| {
        let fails = request.kind == Kind::Get && !answers.load(Ordering::SeqCst);
        fails.then(|| status(503, "{}")).flatten()
    })
    .await;
    let vaults = with_options(azure.client(), QUICK, super::super::Options { rate: RATE, ..options() });
    let vault = open(&vaults, "myvault", Duration::from_secs(60));
    let began = Instant::now();
    // Requests fail until the vault counts as one that only fails: what came in the last second says so.
    let quiet = loop {
        let before = azure.count(Kind::Get);
        let errors = tokio::time::timeout(Duration::from_secs(1), get_at_once(&vault, 4)).await;
        assert!(errors.is_err() || errors.iter().flatten().all(Result::is_err));
        if errors.is_err() && azure.count(Kind::Get) - before <= 2 {
            break azure.count(Kind::Get);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it is never left alone");
    };
    // A crowd waits, and the vault sees one a second.
    let crowd = tokio::spawn({
        let vault = vault.clone();
        async move { get_at_once(&vault, 150).await }
    });
    let (waiting, late) = (Instant::now(), Instant::now() + Duration::from_secs(20));
    while azure.count(Kind::Get) < quiet + 4 {
        assert!(Instant::now() < late, "the vault is not asked at all");
        tokio::time::sleep(milliseconds(5)).await;
    }
    // The first of the four may come at once.
    assert!(waiting.elapsed() >= milliseconds(2_800), "{:?} for four", waiting.elapsed());
    assert!(!crowd.is_finished());
    let held = azure.count(Kind::Get);
    well.store(true, Ordering::SeqCst);
    while azure.count(Kind::Get) == held {
        assert!(Instant::now() < late, "the vault is not asked any more");
        tokio::time::sleep(milliseconds(5)).await;
    }
    let answered = Instant::now();
    let results = crowd.await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    // A hundred a second and no burst, which would take less than a second.
    assert!(answered.elapsed() >= milliseconds(1_300), "{:?}", answered.elapsed());
}

fn fault() -> Result<(), Error> {
    let host = VAULT.to_owned();
    Err(Error::Unreachable { service: Service::KeyVault, host, link: Link::CutOff, proxied: false })
}

#[tokio::test]
async fn those_who_wait_are_called_up_in_order_and_whoever_left_takes_no_turn() {
    let lane = Budget::new(Rate { per_second: 50, burst: 1 }, Metrics::new()).lane(VAULT);
    let late = Instant::now() + Duration::from_secs(60);
    lane.turn(late).await.unwrap();
    let began = Instant::now();
    // Given up at once: an impatient crowd must not hold up the others.
    let gone = (0..100).map(|_| lane.turn(Instant::now()));
    assert!(futures::future::join_all(gone).await.iter().all(Result::is_err));
    let order = std::sync::Mutex::new(Vec::new());
    let waiting = (0..5).map(|number| {
        let (lane, order) = (lane.clone(), &order);
        async move {
            lane.turn(late).await.unwrap();
            order.lock().unwrap().push(number);
        }
    });
    futures::future::join_all(waiting).await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    let took = began.elapsed();
    assert!(took >= milliseconds(80) && took < milliseconds(1_000), "{took:?}");
}

#[tokio::test]
async fn a_mount_goes_before_the_refreshes_that_wait() {
    let lane = Budget::new(Rate { per_second: 50, burst: 1 }, Metrics::new()).lane(VAULT);
    let late = Instant::now() + Duration::from_secs(60);
    lane.turn(late).await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    let joined = Rank::of(Purpose::Refresh);
    let waiting = (0..6).map(|number| {
        let rank = if number == 2 { joined.clone() } else { Rank::of(Purpose::Refresh) };
        let rank = if number >= 4 { Rank::of(Purpose::Mount) } else { rank };
        let (lane, order) = (lane.clone().ranked(rank), &order);
        async move {
            lane.turn(late).await.unwrap();
            order.lock().unwrap().push(number);
        }
    });
    let all = futures::future::join_all(waiting);
    tokio::pin!(all);
    assert!(futures::poll!(&mut all).is_pending());
    // Somebody who mounts waits for what this one fetches.
    joined.join(&Rank::of(Purpose::Mount));
    all.await;
    assert_eq!(*order.lock().unwrap(), [2, 4, 5, 0, 1, 3]);
}

#[tokio::test]
async fn a_wait_that_cannot_end_in_time_is_not_begun() {
    let lane = Budget::new(RATE, Metrics::new()).lane(VAULT);
    let soon = Instant::now() + Duration::from_secs(20);
    let azure = Azure::start(|request, _| {
        (request.kind == Kind::Get).then(|| super::server::Answer::Status(429, "retry-after: 30\r\n", "{}".into()))
    })
    .await;
    let vaults = with_options(azure.client(), QUICK, options());
    let error = super::get(&open(&vaults, "myvault", Duration::from_secs(20)), "db").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Throttled);
    // The next one is not even sent.
    let before = azure.count(Kind::Get);
    let error = super::get(&open(&vaults, "myvault", Duration::from_secs(20)), "other").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Throttled);
    assert!(matches!(error, Error::HeldBack { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("429") && text.contains(VAULT), "{text}");
    assert_eq!(azure.count(Kind::Get), before);
    // Another vault has a queue of its own.
    assert!(lane.turn(soon).await.is_ok());
}

#[tokio::test]
async fn an_error_of_a_full_queue_names_the_budget() {
    let lane = Budget::new(Rate { per_second: 1, burst: 1 }, Metrics::new()).lane(VAULT);
    lane.turn(Instant::now() + milliseconds(10)).await.unwrap();
    let error = lane.turn(Instant::now() + milliseconds(10)).await.unwrap_err();
    assert!(error.to_string().contains("--vault-requests-per-second"), "{error}");
    lane.learn(&fault());
    let error = lane.turn(Instant::now() + milliseconds(10)).await.unwrap_err();
    assert!(error.to_string().contains("broke before the answer"), "{error}");
}

#[tokio::test]
async fn everything_that_goes_to_a_vault_goes_through_its_queue() {
    let azure = Azure::start(|request, _| (request.kind == Kind::Get).then(|| status(404, "{}")).flatten()).await;
    let rate = Rate { per_second: 20, burst: 1 };
    let vaults = with_options(azure.client(), QUICK, super::super::Options { rate, ..options() });
    let began = Instant::now();
    // One challenge and ten gets: eleven turns, the first of them at once.
    let _ = get_at_once(&open(&vaults, "myvault", Duration::from_secs(60)), 10).await;
    assert_eq!(azure.counts(), [1, 1, 10]);
    assert!(began.elapsed() >= milliseconds(490), "{:?}", began.elapsed());
}
