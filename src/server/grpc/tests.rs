//! Which connection has to go, and which stays.

use std::task::{Context, Waker};

use super::places::{ARRIVING, Call, HELD, Place, Places};

fn is_closed(place: &Place) -> bool {
    place.is_closed(&Context::from_waker(Waker::noop()))
}

fn enter(places: &Places) -> Place {
    places.enter(false).expect("a place")
}

/// A call of which the request has come.
fn served(place: &Place) -> Call {
    let call = place.begin();
    call.serve();
    call
}

#[tokio::test]
async fn the_oldest_connection_without_a_whole_request_makes_room() {
    let places = Places::new(4);
    let [busy, incomplete, silent, done] = [(); 4].map(|()| enter(&places));
    let (_publish, _half) = (served(&busy), incomplete.begin());
    drop(served(&done));
    let newcomers = [(); 3].map(|()| enter(&places));
    assert!(!is_closed(&busy), "a call that is served is never cut off");
    assert!(is_closed(&incomplete) && is_closed(&silent) && is_closed(&done));
    assert!(newcomers.iter().all(|place| !is_closed(place)) && places.open() == 4);
    // The place is another's by now.
    drop((incomplete, silent, done));
    assert_eq!(places.open(), 4);
    drop(newcomers);
    assert_eq!(places.open(), 1);
}

#[tokio::test]
async fn when_all_are_served_only_the_own_probe_gets_in() {
    let places = Places::new(2);
    let busy = [(); 2].map(|()| enter(&places));
    let _calls = busy.each_ref().map(served);
    assert!(places.enter(false).is_none());
    let own = places.enter(true).expect("the probe is never refused");
    assert!(busy.iter().all(|place| !is_closed(place)));
    assert!(places.enter(false).is_none(), "nor is it closed for another's sake");
    assert!(!is_closed(&own));
}

#[tokio::test]
async fn the_connection_with_most_incomplete_requests_goes() {
    let places = Places::new(100);
    let [few, many, own_calls] = [(); 3].map(|()| enter(&places));
    let _few: Vec<Call> = (0..10).map(|_| few.begin()).collect();
    let mut calls: Vec<Call> = (0..ARRIVING - 10).map(|_| many.begin()).collect();
    assert!(!is_closed(&many), "as many as may be");
    calls.push(own_calls.begin());
    assert!(is_closed(&many) && !is_closed(&few) && !is_closed(&own_calls));
}

#[tokio::test]
async fn of_equals_the_oldest_goes() {
    let places = Places::new(2 * ARRIVING);
    let connections: Vec<Place> = (0..=ARRIVING).map(|_| enter(&places)).collect();
    let _calls: Vec<Call> = connections.iter().map(Place::begin).collect();
    let closed: Vec<bool> = connections.iter().map(is_closed).collect();
    assert!(closed[0] && !closed[1..].contains(&true));
}

#[tokio::test]
async fn the_connection_whose_incomplete_requests_are_largest_goes() {
    let places = Places::new(100);
    let [whole, large, small] = [(); 3].map(|()| enter(&places));
    let (publish, hoard, usual) = (served(&whole), large.begin(), small.begin());
    publish.hold(HELD / 2);
    hoard.hold(HELD / 2 - 4_096);
    usual.hold(4_096);
    assert!([&whole, &large, &small].iter().all(|place| !is_closed(place)));
    usual.hold(1);
    assert!(is_closed(&large) && !is_closed(&whole) && !is_closed(&small));
    drop((publish, hoard));
    usual.hold(HELD - 8_192);
    assert!(!is_closed(&small), "what is over holds nothing");
}
