//! When keys are due, with the clock as an argument.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::schedule::{MIN_DELAY, Schedule, first};

const INTERVAL: Duration = Duration::from_secs(120);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn keys_that_start_together_are_spread_over_the_first_interval_and_run_again_within_each() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    for number in 0..10_u32 {
        schedule.add(&number, first(start, INTERVAL, f64::from(number) / 10.0));
    }
    assert_eq!(schedule.take(start), Some(0));
    assert_eq!(schedule.take(start), None, "the others are due later");
    assert_eq!(schedule.next(), Some(start + seconds(12)));
    schedule.finish(&0, INTERVAL, 0.5, start + seconds(1));
    let mut order = Vec::new();
    while let Some(key) = schedule.take(start + seconds(108)) {
        order.push(key);
    }
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // At most twelve seconds early; half of that by the jitter.
    assert_eq!(schedule.next(), Some(start + seconds(114)));
}

#[test]
fn a_key_that_is_made_due_runs_at_once_but_not_before_the_minimum_delay() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.add(&1, start + INTERVAL);
    schedule.run_now(&1, start);
    schedule.run_now(&2, start);
    assert!(schedule.take(start).is_some() && schedule.take(start).is_some());
    assert_eq!(schedule.take(start), None, "both run");
    schedule.finish(&1, INTERVAL, 0.0, start);
    schedule.finish(&2, INTERVAL, 0.0, start);
    schedule.run_now(&1, start);
    assert_eq!(schedule.take(start), None);
    assert_eq!(schedule.next(), Some(start + MIN_DELAY));
    assert_eq!(schedule.take(start + MIN_DELAY), Some(1));
}

#[test]
fn a_key_that_is_made_due_while_it_runs_runs_again() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.run_now(&1, start);
    assert_eq!(schedule.take(start), Some(1));
    schedule.run_now(&1, start + seconds(1));
    assert_eq!(schedule.next(), None);
    schedule.finish(&1, INTERVAL, 0.0, start + seconds(2));
    assert_eq!(schedule.take(start + seconds(2)), Some(1));
    schedule.finish(&1, INTERVAL, 0.0, start + seconds(3));
    assert_eq!(schedule.next(), Some(start + seconds(2) + INTERVAL));
}

#[test]
fn a_key_that_ran_longer_than_its_interval_is_due_at_once() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    schedule.run_now(&1, start);
    assert_eq!(schedule.take(start), Some(1));
    schedule.finish(&1, INTERVAL, 0.0, start + 2 * INTERVAL);
    assert_eq!(schedule.take(start + 2 * INTERVAL), Some(1));
    schedule.remove(&1);
    schedule.finish(&1, INTERVAL, 0.0, start + 3 * INTERVAL);
    assert_eq!(schedule.next(), None);
}

proptest! {
    #[test]
    fn no_key_is_later_than_its_interval(jitter in prop::collection::vec(0.0..1.0_f64, 1..50), milliseconds in 1_u64..10_000) {
        let interval = Duration::from_millis(milliseconds);
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.add(&(), first(now, interval, jitter[0]));
        prop_assert!(schedule.next() <= Some(now + interval));
        for jitter in jitter {
            now = schedule.next().unwrap();
            prop_assert!(schedule.take(now).is_some());
            schedule.finish(&(), interval, jitter, now);
            let next = schedule.next().unwrap();
            prop_assert!(next >= now + interval.mul_f64(0.89).min(MIN_DELAY) && next <= now + interval);
        }
    }
}

/// A fetch from a vault that is down runs until its deadline.
#[test]
fn slow_keys_leave_half_of_the_slots_to_others() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    (0..20).for_each(|key| schedule.add(&key, start));
    while schedule.take(start).is_some() {}
    let (slow, quick) = (start + seconds(110), start + seconds(1));
    (0..20).for_each(|key| schedule.finish(&key, INTERVAL, 0.0, if key < 15 { slow } else { quick }));
    let later = start + seconds(240);
    let taken: Vec<i32> = std::iter::from_fn(|| schedule.take(later)).collect();
    assert_eq!(taken.iter().filter(|key| **key < 15).count(), 8);
    assert_eq!(taken.iter().filter(|key| **key >= 15).count(), 5);
    // A key without a slot is not due; the end of a run frees one.
    assert_eq!(schedule.next(), None);
    let slow = taken.iter().find(|key| **key < 15).copied().unwrap();
    schedule.finish(&slow, INTERVAL, 0.0, later + seconds(1));
    assert!(schedule.take(later + seconds(1)).is_some_and(|key| key < 15 && key != slow));
}

#[test]
fn isolated_keys_leave_half_of_the_slots_from_their_first_run_on() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    for key in 0..40 {
        schedule.add(&key, start);
        if key < 30 {
            schedule.isolate(&key, if key < 20 { "one" } else { "other" });
        }
    }
    let taken: Vec<i32> = std::iter::from_fn(|| schedule.take(start)).collect();
    // Half of the slots, and half of those for each cause.
    assert_eq!(taken.iter().filter(|key| **key < 20).count(), 4);
    assert_eq!(taken.iter().filter(|key| (20..30).contains(*key)).count(), 4);
    assert_eq!(taken.iter().filter(|key| **key >= 30).count(), 10);
    // Even if they are quick.
    taken.iter().for_each(|key| schedule.finish(key, INTERVAL, 0.0, start));
    assert_eq!(std::iter::from_fn(|| schedule.take(start)).count(), 8);
}
