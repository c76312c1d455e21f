//! What is due when, with a clock that stands in the test.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::node::volume::registry::schedule::{REST, Schedule, first};

const INTERVAL: Duration = Duration::from_secs(120);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_began_together_is_spread_over_the_first_interval_and_comes_again_within_each() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    for number in 0..10_u32 {
        schedule.add(&number, first(start, INTERVAL, f64::from(number) / 10.0));
    }
    assert_eq!(schedule.take(start), Some(0));
    assert_eq!(schedule.take(start), None, "the others come later");
    assert_eq!(schedule.next(), Some(start + seconds(12)));
    schedule.ended(&0, INTERVAL, 0.5, start + seconds(1));
    let mut order = Vec::new();
    while let Some(key) = schedule.take(start + seconds(108)) {
        order.push(key);
    }
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // Twelve seconds are the most that it comes early; half of it by the dice.
    assert_eq!(schedule.next(), Some(start + seconds(114)));
}

#[test]
fn what_is_hurried_comes_at_once_but_not_without_a_rest() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.add(&1, start + INTERVAL);
    schedule.hurry(&1, start);
    schedule.hurry(&2, start);
    assert!(schedule.take(start).is_some() && schedule.take(start).is_some());
    assert_eq!(schedule.take(start), None, "both run");
    schedule.ended(&1, INTERVAL, 0.0, start);
    schedule.ended(&2, INTERVAL, 0.0, start);
    schedule.hurry(&1, start);
    assert_eq!(schedule.take(start), None);
    assert_eq!(schedule.next(), Some(start + REST));
    assert_eq!(schedule.take(start + REST), Some(1));
}

#[test]
fn what_is_hurried_while_it_runs_runs_again() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.hurry(&1, start);
    assert_eq!(schedule.take(start), Some(1));
    schedule.hurry(&1, start + seconds(1));
    assert_eq!(schedule.next(), None);
    schedule.ended(&1, INTERVAL, 0.0, start + seconds(2));
    assert_eq!(schedule.take(start + seconds(2)), Some(1));
    schedule.ended(&1, INTERVAL, 0.0, start + seconds(3));
    assert_eq!(schedule.next(), Some(start + seconds(2) + INTERVAL));
}

#[test]
fn what_took_longer_than_the_interval_comes_at_once() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.hurry(&1, start);
    assert_eq!(schedule.take(start), Some(1));
    schedule.ended(&1, INTERVAL, 0.0, start + 2 * INTERVAL);
    assert_eq!(schedule.take(start + 2 * INTERVAL), Some(1));
    schedule.remove(&1);
    schedule.ended(&1, INTERVAL, 0.0, start + 3 * INTERVAL);
    assert_eq!(schedule.next(), None);
}

proptest! {
    #[test]
    fn nothing_is_ever_later_than_its_interval(dice in prop::collection::vec(0.0..1.0_f64, 1..50), milliseconds in 1_u64..10_000) {
        let interval = Duration::from_millis(milliseconds);
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.add(&(), first(now, interval, dice[0]));
        prop_assert!(schedule.next() <= Some(now + interval));
        for dice in dice {
            now = schedule.next().unwrap();
            prop_assert!(schedule.take(now).is_some());
            schedule.ended(&(), interval, dice, now);
            let next = schedule.next().unwrap();
            prop_assert!(next >= now + interval.mul_f64(0.89).min(REST) && next <= now + interval);
        }
    }
}

/// A vault that is down costs its volumes their deadline at each try.
#[test]
fn what_is_slow_leaves_half_of_the_places_to_others() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    (0..20).for_each(|key| schedule.add(&key, start));
    while schedule.take(start).is_some() {}
    let (slow, quick) = (start + seconds(110), start + seconds(1));
    (0..20).for_each(|key| schedule.ended(&key, INTERVAL, 0.0, if key < 15 { slow } else { quick }));
    let later = start + seconds(240);
    let taken: Vec<i32> = std::iter::from_fn(|| schedule.take(later)).collect();
    assert_eq!(taken.iter().filter(|key| **key < 15).count(), 8);
    assert_eq!(taken.iter().filter(|key| **key >= 15).count(), 5);
    // What has no place is no reason to wake up for; with the first end there is one.
    assert_eq!(schedule.next(), None);
    let slow = taken.iter().find(|key| **key < 15).copied().unwrap();
    schedule.ended(&slow, INTERVAL, 0.0, later + seconds(1));
    assert!(schedule.take(later + seconds(1)).is_some_and(|key| key < 15 && key != slow));
}

#[test]
fn what_is_suspect_leaves_them_from_its_first_run_on() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    for key in 0..40 {
        schedule.add(&key, start);
        if key < 30 {
            schedule.suspect(&key, if key < 20 { "one" } else { "other" });
        }
    }
    let taken: Vec<i32> = std::iter::from_fn(|| schedule.take(start)).collect();
    // Half of the places, and half of those for each cause.
    assert_eq!(taken.iter().filter(|key| **key < 20).count(), 4);
    assert_eq!(taken.iter().filter(|key| (20..30).contains(*key)).count(), 4);
    assert_eq!(taken.iter().filter(|key| **key >= 30).count(), 10);
    // However quickly it ends.
    taken.iter().for_each(|key| schedule.ended(key, INTERVAL, 0.0, start));
    assert_eq!(std::iter::from_fn(|| schedule.take(start)).count(), 8);
}
