//! How the places for connections are shared among namespaces, and that a fetch holds no other's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::super::Purpose;
use super::super::error::Error;
use super::super::flight::{Flights, Lasting, Room, Wanted};
use super::super::places::{self, Claim, Place, Places};
use super::super::rank::Rank;
use crate::model::Reason;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A place that is free now.
fn free(claim: &Claim) -> Option<Place> {
    claim.take(&Rank::of(Purpose::Mount), soon()).now_or_never().map(Result::unwrap)
}

/// As many as are free now.
fn all(claim: &Claim) -> Vec<Place> {
    std::iter::from_fn(|| free(claim)).collect()
}

#[tokio::test]
async fn a_namespace_has_half_and_the_last_quarter_is_for_those_with_few() {
    let places = Places::new(64);
    let [greedy, second, third] = ["a", "b", "c"].map(|name| places.of(name));
    let held = [all(&greedy), all(&second), all(&third)];
    assert_eq!(held.each_ref().map(Vec::len), [32, 16, 4]);
    // There is something for each of many more.
    for name in ["d", "e", "f"] {
        std::mem::forget(free(&places.of(name)).expect("a place for a namespace that has none"));
    }
    // Of what is given back, everybody may have what lies before the last quarter: 48, less 16, 4 and 3 of others, and
    // its own 3.
    let [mut first, _second, _third] = held;
    first.truncate(3);
    assert_eq!(all(&greedy).len(), 22);
}

#[tokio::test]
async fn even_one_place_serves_everybody_in_turn() {
    let places = Places::new(0);
    let [one, other] = ["a", "b"].map(|name| places.of(name));
    let held = free(&one).unwrap();
    let rank = Rank::of(Purpose::Mount);
    let waits = other.take(&rank, soon());
    tokio::pin!(waits);
    assert!(futures::poll!(&mut waits).is_pending());
    drop(held);
    waits.await.unwrap();
    assert!(free(&one).is_some(), "it was given back");
}

#[tokio::test]
async fn a_mount_goes_before_refreshes_and_whoever_left_takes_no_turn() {
    let places = Places::new(2);
    let claim = places.of("a");
    let held = free(&claim).unwrap();
    let (refresh, mount) = (Rank::of(Purpose::Refresh), Rank::of(Purpose::Mount));
    let (gone, first, second) = (claim.take(&mount, soon()), claim.take(&refresh, soon()), claim.take(&mount, soon()));
    let mut gone = Box::pin(gone);
    tokio::pin!(first, second);
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    drop(held);
    assert!(futures::poll!(&mut first).is_pending());
    drop(second.await.unwrap());
    first.await.unwrap();
}

#[tokio::test]
async fn a_place_that_does_not_come_free_is_told_with_the_namespace() {
    let claim = Places::new(4).of("team-a");
    let _held = all(&claim);
    let error = claim.take(&Rank::of(Purpose::Mount), Instant::now()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
    let text = error.to_string();
    assert!(text.contains("2 fetches for pods of namespace team-a") && text.contains("do not answer"), "{text}");
}

#[derive(Debug, Clone)]
struct Value;

impl Lasting for Value {
    fn until(&self) -> Instant {
        soon()
    }

    fn bytes(&self) -> usize {
        1
    }
}

fn wanted(key: u32, claim: &Claim) -> Wanted<'static, u32> {
    let rank = Rank::of(Purpose::Mount);
    Wanted { key, proof: [0; 32], deadline: soon(), rank, claim: claim.clone(), host: "host" }
}

/// What is shared among namespaces, such as a vault's challenge, must not wait for the places of whoever asked first.
#[tokio::test]
async fn nobody_waits_for_the_place_of_another_namespace() {
    let places = Places::new(8);
    let (crowded, neighbour) = (places.of("crowded"), places.of("neighbour"));
    let _held = all(&crowded);
    let flights = Flights::new(Room { values: 10, bytes: 100 });
    let count = AtomicU32::new(0);
    let fetch = || {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Error>(Value) }.boxed()
    };
    let first = flights.get(wanted(1, &crowded), |_: &Value| true, fetch);
    tokio::pin!(first);
    assert!(futures::poll!(&mut first).is_pending());
    flights.get(wanted(1, &neighbour), |_: &Value| true, fetch).await.unwrap();
    // And what is known needs no place.
    flights.get(wanted(1, &crowded), |_: &Value| true, fetch).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// A fetch that needs a token needs one place, or a namespace with one could fetch nothing.
#[tokio::test]
async fn what_a_fetch_leads_to_runs_in_its_place() {
    let claim = Places::new(1).of("a");
    let flights = Arc::new(Flights::new(Room { values: 10, bytes: 100 }));
    let fetch = || {
        let (flights, claim) = (flights.clone(), claim.clone());
        async move {
            assert!(places::in_hand().is_some());
            let token = || async { places::in_hand().map(|_| Value).ok_or(Error::Credential("no place")) }.boxed();
            flights.get(wanted(2, &claim), |_: &Value| true, token).await
        }
        .boxed()
    };
    flights.get(wanted(1, &claim), |_: &Value| true, fetch).await.unwrap();
    assert!(free(&claim).is_some());
}
