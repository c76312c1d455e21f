//! What followers of a shared fetch get if it fails, is cancelled, or completes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::super::error::{Error, StopReason};
use super::super::fetch_permits::FetchPermits;
use super::super::priority::Priority;
use super::super::single_flight::{Cacheable, Capacity, FetchRequest, SharedFetches};
use crate::model::Purpose;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value(u32, Instant);

impl Cacheable for Value {
    fn until(&self) -> Instant {
        self.1
    }

    fn bytes(&self) -> usize {
        1
    }
}

const CAPACITY: Capacity = Capacity { values: 3, bytes: 100 };
const LATE: Duration = Duration::from_secs(60);

fn request(key: u32, proof: u8, left: Duration) -> FetchRequest<'static, u32> {
    let (deadline, priority) = (Instant::now() + left, Priority::of(Purpose::Mount));
    FetchRequest {
        key,
        proof: [proof; 32],
        deadline,
        priority,
        permits: FetchPermits::new(100).of_namespace("default"),
        host: "host",
    }
}

/// A fetch that counts its runs, and returns `end` after `takes`.
fn fetch(
    count: &Arc<AtomicU32>,
    takes: Duration,
    end: Result<(), Error>,
) -> impl Fn() -> BoxFuture<'static, Result<Value, Error>> + use<> {
    let count = count.clone();
    move || {
        let (number, end) = (count.fetch_add(1, Ordering::SeqCst) + 1, end.clone());
        async move {
            tokio::time::sleep(takes).await;
            end.map(|()| Value(number, Instant::now() + Duration::from_millis(100)))
        }
        .boxed()
    }
}

fn refused() -> Error {
    Error::Credential("the proof")
}

fn timeout() -> Error {
    let last = Box::new(Error::NoResponse { host: "host".into(), limit: LATE });
    Error::GaveUp { stop: StopReason::Deadline, tries: 1, waited: LATE, last }
}

fn queue_timeout() -> Error {
    Error::QueueTimeout { host: "host".into(), waited: LATE, last: None }
}

const SHORT: Duration = Duration::from_millis(20);

/// If the first object of a class is missing, its other fetches are cancelled: their values must
/// neither stay nor be returned late.
#[tokio::test]
async fn a_fetch_without_waiters_completes_and_is_dropped() {
    let (fetches, count) = (SharedFetches::new(CAPACITY), Arc::default());
    fetches.sweep_every(SHORT);
    let young = |value: &Value| Instant::now() < value.1;
    let given_up = fetches.get(request(1, 0, LATE), young, fetch(&count, SHORT, Ok(())));
    assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
    let deadline = Instant::now() + Duration::from_secs(10);
    while fetches.len() > 0 {
        assert!(Instant::now() < deadline, "the value is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fetches.get(request(1, 0, LATE), young, fetch(&count, SHORT, Ok(()))).await.unwrap().0, 2);
}

#[tokio::test]
async fn all_callers_get_an_error_unless_it_is_about_the_leaders_proof() {
    let passing = Error::TooLarge { host: "host".into(), limit: 1 };
    for (error, runs) in [(passing, 1), (refused(), 3)] {
        let (fetches, count) = (SharedFetches::new(CAPACITY), Arc::default());
        let calls = [1, 2, 3]
            .map(|proof| fetches.get(request(1, proof, LATE), |_| true, fetch(&count, SHORT, Err(error.clone()))));
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|found| *found == error)), "{results:?}");
        assert_eq!(count.load(Ordering::SeqCst), runs, "{error}");
    }
}

#[tokio::test]
async fn the_leaders_timeout_is_not_that_of_followers_with_more_time() {
    for error in [timeout(), queue_timeout()] {
        let (fetches, count) = (SharedFetches::new(CAPACITY), Arc::default());
        let leader = fetches.get(request(1, 0, Duration::from_secs(1)), |_| true, fetch(&count, SHORT, Err(error)));
        let patient = fetches.get(request(1, 0, LATE), |_| true, fetch(&count, SHORT, Ok(())));
        let (leader, patient) = tokio::join!(leader, patient);
        assert!(leader.is_err());
        assert_eq!(patient.unwrap().0, 2);
    }
}

#[tokio::test]
async fn a_followers_timeout_has_the_last_cause() {
    let (fetches, count) = (SharedFetches::new(CAPACITY), Arc::default());
    let leader = fetches.get(request(1, 1, LATE), |_| true, fetch(&count, SHORT, Err(refused())));
    let slow = Duration::from_secs(30);
    let left = Duration::from_millis(200);
    let follower = fetches.get(request(1, 2, left), |_| true, fetch(&count, slow, Ok(())));
    let (_, follower) = tokio::join!(leader, follower);
    let Err(Error::GaveUp { stop: StopReason::Deadline, tries: 2, last, .. }) = follower else {
        panic!("{follower:?}");
    };
    assert_eq!(*last, refused());
}

#[tokio::test]
async fn a_fetch_that_panics_is_an_error() {
    let fetches: SharedFetches<u32, Value> = SharedFetches::new(CAPACITY);
    let result = fetches.get(request(1, 0, LATE), |_| true, || async { panic!("on purpose") }.boxed()).await;
    assert!(matches!(result, Err(Error::Sdk { .. })), "{result:?}");
}

#[tokio::test]
async fn values_are_evicted_before_running_fetches() {
    let (fetches, count) = (SharedFetches::new(CAPACITY), Arc::default());
    let slow = fetches.get(request(0, 0, LATE), |_| true, fetch(&count, Duration::from_millis(50), Ok(())));
    let others = async {
        for key in 1..10 {
            fetches.get(request(key, 0, LATE), |_| true, fetch(&count, Duration::ZERO, Ok(()))).await.unwrap();
            assert!(fetches.len() <= CAPACITY.values);
        }
        fetches.get(request(0, 0, LATE), |_| true, fetch(&count, Duration::ZERO, Ok(()))).await
    };
    let (slow, joined) = tokio::join!(slow, others);
    assert_eq!(slow.unwrap(), joined.unwrap(), "the running fetch was evicted");
}

#[tokio::test]
async fn the_bytes_of_all_values_are_limited() {
    let capacity = Capacity { values: 1_000, ..CAPACITY };
    let (fetches, count) = (SharedFetches::new(capacity), Arc::default());
    let known = || (0..500).filter(|key| fetches.has(key, |_| true)).count();
    let long = |number: u32| Ok(Value(number, Instant::now() + LATE));
    for key in 0..500 {
        let brings = || async move { long(key) }.boxed();
        assert_eq!(fetches.get(request(key, 0, LATE), |_| true, brings).await.unwrap().0, key);
        assert!(known() <= capacity.bytes, "each has a byte");
        // Values that are dropped, and errors, count no longer.
        assert!(key % 3 > 0 || fetches.drop_if(&key, |_| true));
        let fails = fetch(&count, Duration::ZERO, Err(refused()));
        fetches.get(request(1_000 + key, 0, LATE), |_| true, fails).await.unwrap_err();
    }
    assert!(known() > capacity.bytes / 2, "what fits stays: {}", known());
}

#[tokio::test]
async fn a_refresh_that_a_mount_joins_gets_its_priority() {
    let fetches = SharedFetches::new(CAPACITY);
    let (refresh, mount) = (Priority::of(Purpose::Refresh), Priority::of(Purpose::Mount));
    let (answer, asked) = tokio::sync::oneshot::channel::<()>();
    let asked = asked.map(|_| Ok(Value(7, Instant::now() + LATE))).boxed().shared();
    let get = |priority: &Priority| {
        let (fetches, asked, priority) = (fetches.clone(), asked.clone(), priority.clone());
        let fetch = move || asked.clone().boxed();
        async move { fetches.get(FetchRequest { priority, ..request(1, 0, LATE) }, |_: &Value| true, fetch).await }
    };
    let (first, again) = (get(&refresh), get(&Priority::of(Purpose::Refresh)));
    tokio::pin!(first, again);
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut again).is_pending());
    assert!(!refresh.is_high());
    let second = get(&mount);
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending());
    assert!(refresh.is_high());
    answer.send(()).unwrap();
    assert_eq!((first.await.unwrap().0, second.await.unwrap().0), (7, 7));
}
