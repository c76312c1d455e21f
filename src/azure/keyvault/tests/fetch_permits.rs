//! How namespaces share the permits, and that no fetch waits for the share of another namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::super::error::Error;
use super::super::fetch_permits::{FetchPermits, NamespacePermits, Permit, current_permit};
use super::super::priority::Priority;
use super::super::single_flight::{Cacheable, Capacity, FetchRequest, SharedFetches};
use crate::model::Purpose;
use crate::model::Reason;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A permit that is free now.
fn free(permits: &NamespacePermits) -> Option<Permit> {
    permits.acquire(&Priority::of(Purpose::Mount), soon()).now_or_never().map(Result::unwrap)
}

/// All permits that are free now.
fn all(permits: &NamespacePermits) -> Vec<Permit> {
    std::iter::from_fn(|| free(permits)).collect()
}

#[tokio::test]
async fn a_namespace_has_half_and_the_last_quarter_is_for_namespaces_with_few() {
    let permits = FetchPermits::new(64);
    let [greedy, second, third] = ["a", "b", "c"].map(|name| permits.of_namespace(name));
    let held = [all(&greedy), all(&second), all(&third)];
    assert_eq!(held.each_ref().map(Vec::len), [32, 16, 4]);
    for name in ["d", "e", "f"] {
        std::mem::forget(free(&permits.of_namespace(name)).expect("a permit for a namespace that has none"));
    }
    // A namespace may have released permits up to the last quarter: 48, less 16, 4 and 3 of the
    // others, and its own 3.
    let [mut first, _second, _third] = held;
    first.truncate(3);
    assert_eq!(all(&greedy).len(), 22);
}

#[tokio::test]
async fn one_permit_serves_all_namespaces_in_turn() {
    let permits = FetchPermits::new(0);
    let [one, other] = ["a", "b"].map(|name| permits.of_namespace(name));
    let held = free(&one).unwrap();
    let priority = Priority::of(Purpose::Mount);
    let waits = other.acquire(&priority, soon());
    tokio::pin!(waits);
    assert!(futures::poll!(&mut waits).is_pending());
    drop(held);
    waits.await.unwrap();
    assert!(free(&one).is_some(), "it was released");
}

#[tokio::test]
async fn a_mount_goes_before_refreshes_and_cancelled_waiters_take_no_permit() {
    let permits = FetchPermits::new(2);
    let permits = permits.of_namespace("a");
    let held = free(&permits).unwrap();
    let (refresh, mount) = (Priority::of(Purpose::Refresh), Priority::of(Purpose::Mount));
    let (gone, first, second) =
        (permits.acquire(&mount, soon()), permits.acquire(&refresh, soon()), permits.acquire(&mount, soon()));
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
async fn the_error_of_the_namespace_limit_names_the_namespace() {
    let permits = FetchPermits::new(4).of_namespace("team-a");
    let _held = all(&permits);
    let error = permits.acquire(&Priority::of(Purpose::Mount), Instant::now()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Timeout);
    let text = error.to_string();
    assert!(text.contains("2 fetches for pods of namespace team-a") && text.contains("do not answer"), "{text}");
}

#[derive(Debug, Clone)]
struct Value;

impl Cacheable for Value {
    fn until(&self) -> Instant {
        soon()
    }

    fn bytes(&self) -> usize {
        1
    }
}

fn request(key: u32, permits: &NamespacePermits) -> FetchRequest<'static, u32> {
    let priority = Priority::of(Purpose::Mount);
    FetchRequest { key, proof: [0; 32], deadline: soon(), priority, permits: permits.clone(), host: "host" }
}

/// A fetch that namespaces share, such as a vault's challenge, must not wait for the permits of the
/// first of them.
#[tokio::test]
async fn no_fetch_waits_for_the_permits_of_another_namespace() {
    let permits = FetchPermits::new(8);
    let (crowded, neighbour) = (permits.of_namespace("crowded"), permits.of_namespace("neighbour"));
    let _held = all(&crowded);
    let fetches = SharedFetches::new(Capacity { values: 10, bytes: 100 });
    let count = AtomicU32::new(0);
    let fetch = || {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Error>(Value) }.boxed()
    };
    let first = fetches.get(request(1, &crowded), |_: &Value| true, fetch);
    tokio::pin!(first);
    assert!(futures::poll!(&mut first).is_pending());
    fetches.get(request(1, &neighbour), |_: &Value| true, fetch).await.unwrap();
    // A cached value needs no permit.
    fetches.get(request(1, &crowded), |_: &Value| true, fetch).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// A fetch and the token request that it needs share a permit, or a namespace with one permit could
/// fetch nothing.
#[tokio::test]
async fn the_requests_of_a_fetch_share_its_permit() {
    let permits = FetchPermits::new(1).of_namespace("a");
    let fetches = Arc::new(SharedFetches::new(Capacity { values: 10, bytes: 100 }));
    let fetch = || {
        let (fetches, permits) = (fetches.clone(), permits.clone());
        async move {
            assert!(current_permit().is_some());
            let token = || async { current_permit().map(|_| Value).ok_or(Error::Credential("no permit")) }.boxed();
            fetches.get(request(2, &permits), |_: &Value| true, token).await
        }
        .boxed()
    };
    fetches.get(request(1, &permits), |_: &Value| true, fetch).await.unwrap();
    assert!(free(&permits).is_some());
}
