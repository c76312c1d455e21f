//! Which connection is closed, and which one stays.

use std::task::{Context, Waker};

use super::connection_limits::{Call, MAX_BYTES, MAX_INCOMPLETE, Slot, Slots};

fn is_closed(slot: &Slot) -> bool {
    slot.is_closed(&Context::from_waker(Waker::noop()))
}

fn enter(slots: &Slots) -> Slot {
    slots.acquire(false).expect("a slot")
}

/// A call whose request is complete.
fn served(slot: &Slot) -> Call {
    let call = slot.begin_call();
    call.complete();
    call
}

#[tokio::test]
async fn the_oldest_connection_without_a_whole_request_makes_room() {
    let slots = Slots::new(4);
    let [busy, incomplete, silent, done] = [(); 4].map(|()| enter(&slots));
    let (_publish, _half) = (served(&busy), incomplete.begin_call());
    drop(served(&done));
    let newcomers = [(); 3].map(|()| enter(&slots));
    assert!(!is_closed(&busy), "a call that is served is never cut off");
    assert!(is_closed(&incomplete) && is_closed(&silent) && is_closed(&done));
    assert!(newcomers.iter().all(|slot| !is_closed(slot)) && slots.open() == 4);
    // Another connection has the slot by now.
    drop((incomplete, silent, done));
    assert_eq!(slots.open(), 4);
    drop(newcomers);
    assert_eq!(slots.open(), 1);
}

#[tokio::test]
async fn when_all_are_served_only_the_own_probe_gets_in() {
    let slots = Slots::new(2);
    let busy = [(); 2].map(|()| enter(&slots));
    let _calls = busy.each_ref().map(served);
    assert!(slots.acquire(false).is_none());
    let own = slots.acquire(true).expect("the probe is never refused");
    assert!(busy.iter().all(|slot| !is_closed(slot)));
    assert!(slots.acquire(false).is_none(), "nor is it closed for another's sake");
    assert!(!is_closed(&own));
}

#[tokio::test]
async fn the_connection_with_most_incomplete_requests_goes() {
    let slots = Slots::new(100);
    let [few, many, own_calls] = [(); 3].map(|()| enter(&slots));
    let _few: Vec<Call> = (0..10).map(|_| few.begin_call()).collect();
    let mut calls: Vec<Call> = (0..MAX_INCOMPLETE - 10).map(|_| many.begin_call()).collect();
    assert!(!is_closed(&many), "as many as may be");
    calls.push(own_calls.begin_call());
    assert!(is_closed(&many) && !is_closed(&few) && !is_closed(&own_calls));
}

#[tokio::test]
async fn of_equals_the_oldest_goes() {
    let slots = Slots::new(2 * MAX_INCOMPLETE);
    let connections: Vec<Slot> = (0..=MAX_INCOMPLETE).map(|_| enter(&slots)).collect();
    let _calls: Vec<Call> = connections.iter().map(Slot::begin_call).collect();
    let closed: Vec<bool> = connections.iter().map(is_closed).collect();
    assert!(closed[0] && !closed[1..].contains(&true));
}

#[tokio::test]
async fn the_connection_whose_incomplete_requests_are_largest_goes() {
    let slots = Slots::new(100);
    let [whole, large, small] = [(); 3].map(|()| enter(&slots));
    let (publish, hoard, usual) = (served(&whole), large.begin_call(), small.begin_call());
    publish.add_bytes(MAX_BYTES / 2);
    hoard.add_bytes(MAX_BYTES / 2 - 4_096);
    usual.add_bytes(4_096);
    assert!([&whole, &large, &small].iter().all(|slot| !is_closed(slot)));
    usual.add_bytes(1);
    assert!(is_closed(&large) && !is_closed(&whole) && !is_closed(&small));
    drop((publish, hoard));
    usual.add_bytes(MAX_BYTES - 8_192);
    assert!(!is_closed(&small), "what is over holds nothing");
}
