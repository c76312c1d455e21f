//! Who waits for whose fetch, and what they get when it fails, is given up, or ends late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::super::error::{Error, Stop};
use super::super::flight::{Flights, Lasting, Room, Wanted};
use super::super::places::Places;
use super::super::rank::{Purpose, Rank};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value(u32, Instant);

impl Lasting for Value {
    fn until(&self) -> Instant {
        self.1
    }

    fn bytes(&self) -> usize {
        1
    }
}

const ROOM: Room = Room { values: 3, bytes: 100 };
const LATE: Duration = Duration::from_secs(60);

fn wanted(key: u32, proof: u8, left: Duration) -> Wanted<'static, u32> {
    let (deadline, rank) = (Instant::now() + left, Rank::of(Purpose::Mount));
    Wanted { key, proof: [proof; 32], deadline, rank, claim: Places::new(100).of("default"), host: "host" }
}

/// A fetch that counts, takes its time and ends like this.
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

fn out_of_time() -> Error {
    let last = Box::new(Error::NoAnswer { host: "host".into(), limit: LATE });
    Error::GaveUp { stop: Stop::Deadline, tries: 1, waited: LATE, last }
}

fn held_back() -> Error {
    Error::HeldBack { host: "host".into(), waited: LATE, last: None }
}

const SHORT: Duration = Duration::from_millis(20);

/// A class whose first object is missing gives its other fetches up; what they bring must neither stay nor be given out late.
#[tokio::test]
async fn a_fetch_that_nobody_waits_for_ends_and_is_wiped() {
    let (flights, count) = (Flights::new(ROOM), Arc::default());
    flights.sweep_every(SHORT);
    let young = |value: &Value| Instant::now() < value.1;
    let given_up = flights.get(wanted(1, 0, LATE), young, fetch(&count, SHORT, Ok(())));
    assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
    let deadline = Instant::now() + Duration::from_secs(10);
    while flights.len() > 0 {
        assert!(Instant::now() < deadline, "the value is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(flights.get(wanted(1, 0, LATE), young, fetch(&count, SHORT, Ok(()))).await.unwrap().0, 2);
}

#[tokio::test]
async fn a_failure_is_everybodys_unless_it_is_about_ones_proof() {
    let passing = Error::TooLarge { host: "host".into(), limit: 1 };
    for (error, fetches) in [(passing, 1), (refused(), 3)] {
        let (flights, count) = (Flights::new(ROOM), Arc::default());
        let calls = [1, 2, 3]
            .map(|proof| flights.get(wanted(1, proof, LATE), |_| true, fetch(&count, SHORT, Err(error.clone()))));
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|found| *found == error)), "{results:?}");
        assert_eq!(count.load(Ordering::SeqCst), fetches, "{error}");
    }
}

#[tokio::test]
async fn a_leader_who_runs_out_of_time_takes_nobody_along_who_has_more() {
    for error in [out_of_time(), held_back()] {
        let (flights, count) = (Flights::new(ROOM), Arc::default());
        let leader = flights.get(wanted(1, 0, Duration::from_secs(1)), |_| true, fetch(&count, SHORT, Err(error)));
        let patient = flights.get(wanted(1, 0, LATE), |_| true, fetch(&count, SHORT, Ok(())));
        let (leader, patient) = tokio::join!(leader, patient);
        assert!(leader.is_err());
        assert_eq!(patient.unwrap().0, 2);
    }
}

#[tokio::test]
async fn a_wait_that_ends_tells_the_last_cause() {
    let (flights, count) = (Flights::new(ROOM), Arc::default());
    let leader = flights.get(wanted(1, 1, LATE), |_| true, fetch(&count, SHORT, Err(refused())));
    let slow = Duration::from_secs(30);
    let left = Duration::from_millis(200);
    let follower = flights.get(wanted(1, 2, left), |_| true, fetch(&count, slow, Ok(())));
    let (_, follower) = tokio::join!(leader, follower);
    let Err(Error::GaveUp { stop: Stop::Deadline, tries: 2, last, .. }) = follower else {
        panic!("{follower:?}");
    };
    assert_eq!(*last, refused());
}

#[tokio::test]
async fn a_fetch_that_panics_is_an_error() {
    let flights: Flights<u32, Value> = Flights::new(ROOM);
    let result = flights.get(wanted(1, 0, LATE), |_| true, || async { panic!("on purpose") }.boxed()).await;
    assert!(matches!(result, Err(Error::Sdk { .. })), "{result:?}");
}

#[tokio::test]
async fn a_full_memory_forgets_what_is_known_before_what_is_under_way() {
    let (flights, count) = (Flights::new(ROOM), Arc::default());
    let slow = flights.get(wanted(0, 0, LATE), |_| true, fetch(&count, Duration::from_millis(50), Ok(())));
    let others = async {
        for key in 1..10 {
            flights.get(wanted(key, 0, LATE), |_| true, fetch(&count, Duration::ZERO, Ok(()))).await.unwrap();
            assert!(flights.len() <= ROOM.values);
        }
        flights.get(wanted(0, 0, LATE), |_| true, fetch(&count, Duration::ZERO, Ok(()))).await
    };
    let (slow, joined) = tokio::join!(slow, others);
    assert_eq!(slow.unwrap(), joined.unwrap(), "the one under way was forgotten");
}

#[tokio::test]
async fn a_memory_holds_no_more_bytes_than_it_has_room_for() {
    let room = Room { values: 1_000, ..ROOM };
    let (flights, count) = (Flights::new(room), Arc::default());
    let known = || (0..500).filter(|key| flights.has(key, |_| true)).count();
    let long = |number: u32| Ok(Value(number, Instant::now() + LATE));
    for key in 0..500 {
        let brings = || async move { long(key) }.boxed();
        assert_eq!(flights.get(wanted(key, 0, LATE), |_| true, brings).await.unwrap().0, key);
        assert!(known() <= room.bytes, "each has a byte");
        // What is dropped and what fails leaves its room to others.
        assert!(key % 3 > 0 || flights.drop_if(&key, |_| true));
        let fails = fetch(&count, Duration::ZERO, Err(refused()));
        flights.get(wanted(1_000 + key, 0, LATE), |_| true, fails).await.unwrap_err();
    }
    assert!(known() > room.bytes / 2, "what fits stays: {}", known());
}

#[tokio::test]
async fn a_refresh_that_a_mount_waits_for_goes_as_a_mount() {
    let flights = Flights::new(ROOM);
    let (refresh, mount) = (Rank::of(Purpose::Refresh), Rank::of(Purpose::Mount));
    let (answer, asked) = tokio::sync::oneshot::channel::<()>();
    let asked = asked.map(|_| Ok(Value(7, Instant::now() + LATE))).boxed().shared();
    let get = |rank: &Rank| {
        let (flights, asked, rank) = (flights.clone(), asked.clone(), rank.clone());
        let fetch = move || asked.clone().boxed();
        async move { flights.get(Wanted { rank, ..wanted(1, 0, LATE) }, |_: &Value| true, fetch).await }
    };
    let (first, again) = (get(&refresh), get(&Rank::of(Purpose::Refresh)));
    tokio::pin!(first, again);
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut again).is_pending());
    assert!(!refresh.is_first());
    let second = get(&mount);
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending());
    assert!(refresh.is_first());
    answer.send(()).unwrap();
    assert_eq!((first.await.unwrap().0, second.await.unwrap().0), (7, 7));
}
