//! When keys are due, and why.

use std::time::{Duration, Instant};

use super::super::work_queue::{Outcome, Trigger, WorkQueue};

const RESYNC: Duration = Duration::from_secs(300);

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// A queue in which the key `a` is due.
fn queue(start: Instant) -> WorkQueue<&'static str> {
    let mut queue = WorkQueue::new(RESYNC);
    queue.add(&"a", Trigger::Resync, start);
    queue
}

#[test]
fn a_change_is_due_at_once_and_a_resync_after_the_interval() {
    let start = Instant::now();
    let mut queue = queue(start);
    assert_eq!(queue.next_due(), Some(start));
    assert_eq!(queue.take(start), Some(("a", Trigger::Resync)));
    // While it runs it is not taken again; it is due again afterwards if something changed
    // meanwhile.
    queue.add(&"a", Trigger::Change, start);
    assert_eq!((queue.take(start), queue.next_due()), (None, None));
    queue.finish(&"a", Outcome::Done, start, 0.5);
    assert_eq!(queue.take(start), Some(("a", Trigger::Change)));
    queue.finish(&"a", Outcome::Done, start, 0.0);
    // The change does not postpone the resync.
    assert_eq!(queue.next_due(), Some(after(start, 300)));
    assert_eq!(queue.take(after(start, 299)), None);
    assert_eq!(queue.take(after(start, 300)), Some(("a", Trigger::Resync)));
    queue.finish(&"a", Outcome::Done, after(start, 300), 0.0);
    assert_eq!(queue.next_due(), Some(after(start, 570)));
}

#[test]
fn changes_every_minute_do_not_postpone_the_resync() {
    let start = Instant::now();
    let mut queue = queue(start);
    let triggers = (0..12).map(|minute| {
        let now = after(start, 60 * minute);
        queue.add(&"a", Trigger::Change, now);
        let (_, trigger) = queue.take(now).unwrap();
        queue.finish(&"a", Outcome::Done, now, 0.5);
        trigger
    });
    let resyncs: Vec<usize> =
        triggers.enumerate().filter(|(_, trigger)| *trigger == Trigger::Resync).map(|(minute, _)| minute).collect();
    assert_eq!(resyncs, [0, 5, 10]);
}

#[test]
fn failures_back_off_up_to_the_resync_interval() {
    let start = Instant::now();
    let mut queue = queue(start);
    for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
        queue.take(after(start, 100_000)).unwrap();
        queue.finish(&"a", Outcome::Failed, start, 0.5);
        assert_eq!(queue.next_due(), Some(after(start, pause)));
    }
    // A change ends the pause, and counts as a resync.
    queue.add(&"a", Trigger::Change, start);
    assert_eq!(queue.take(start), Some(("a", Trigger::Resync)));
    queue.finish(&"a", Outcome::Done, start, 0.5);
    assert_eq!(queue.next_due(), Some(after(start, 300)));
}

#[test]
fn an_idle_key_waits_for_a_change_and_a_removed_one_is_dropped() {
    let start = Instant::now();
    let mut queue = queue(start);
    queue.take(start).unwrap();
    queue.finish(&"a", Outcome::Idle, start, 0.5);
    assert_eq!(queue.next_due(), None);
    queue.trigger_all(Trigger::Change, start);
    assert!(queue.take(start).is_some());
    queue.remove(&"a");
    queue.trigger_all(Trigger::Change, start);
    assert!(queue.contains(&"a"));
    queue.finish(&"a", Outcome::Done, start, 0.5);
    assert!(!queue.contains(&"a") && queue.next_due().is_none());
}

#[test]
fn a_key_that_is_removed_and_added_while_it_runs_stays_and_runs_once_at_a_time() {
    let start = Instant::now();
    let mut queue = queue(start);
    queue.take(start).unwrap();
    queue.remove(&"a");
    queue.add(&"a", Trigger::Resync, start);
    assert_eq!(queue.take(start), None);
    queue.finish(&"a", Outcome::Done, start, 0.5);
    assert_eq!(queue.take(start), Some(("a", Trigger::Resync)));
}
