//! A work queue: keys that have to be reconciled, and when.
//!
//! Pure: time and jitter are arguments, and the caller waits and reconciles. A change makes a key
//! due at once, success after the resync interval, failure after a backoff.
//!
//! # Guarantees
//! A key is never taken twice at the same time; one that changes while it runs is due again
//! afterwards. Changes do not postpone a resync.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, spread};

/// The first pause after a failure; it doubles up to the resync interval.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Why a key is due. The greater trigger wins if there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// Something that the caller watches changed; everything else counts as unchanged.
    Change,
    /// The interval has passed, or the last try failed: anything may have changed.
    Resync,
}

/// The result of a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The desired state is reached.
    Done,
    /// There is no desired state; nothing is due before the next change.
    Idle,
    /// The desired state is not reached.
    Failed,
}

/// Keys with due times.
#[derive(Debug)]
pub struct WorkQueue<K> {
    resync: Duration,
    items: BTreeMap<K, Item>,
}

#[derive(Debug)]
struct Item {
    due: Option<(Instant, Trigger)>,
    /// When the next resync is due, however many changes come before.
    next_resync: Option<Instant>,
    running: bool,
    /// Removed while it runs.
    removed: bool,
    backoff: Backoff,
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// An empty queue; after a success, a key is due again after `resync`.
    pub fn new(resync: Duration) -> WorkQueue<K> {
        WorkQueue { resync, items: BTreeMap::new() }
    }

    /// Makes a key due now; adds it if unknown, and reruns it if it is running.
    pub fn add(&mut self, key: &K, trigger: Trigger, now: Instant) {
        let backoff = Backoff::new(FIRST_PAUSE, self.resync);
        let new = || Item { due: None, next_resync: None, running: false, removed: false, backoff };
        let item = self.items.entry(key.clone()).or_insert_with(new);
        item.removed = false;
        item.make_due(now, trigger);
    }

    /// Makes all known keys due now.
    pub fn trigger_all(&mut self, trigger: Trigger, now: Instant) {
        self.items.values_mut().filter(|item| !item.removed).for_each(|item| item.make_due(now, trigger));
    }

    /// Drops a key; one that is running stays [known](WorkQueue::contains) until it has finished.
    pub fn remove(&mut self, key: &K) {
        match self.items.get_mut(key) {
            Some(item) if item.running => item.removed = true,
            _ => drop(self.items.remove(key)),
        }
    }

    /// Whether the key is due now or later, idle, or running.
    pub fn contains(&self, key: &K) -> bool {
        self.items.contains_key(key)
    }

    /// When the next key is due.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.items.values().filter(|item| !item.running);
        waiting.filter_map(|item| item.due.map(|(at, _)| at)).min()
    }

    /// Takes the key that has been due longest; it runs until [`WorkQueue::finish`].
    pub fn take(&mut self, now: Instant) -> Option<(K, Trigger)> {
        let is_due = |item: &&mut Item| !item.running && item.due.is_some_and(|(at, _)| at <= now);
        let due = self.items.iter_mut().filter(|(_, item)| is_due(item));
        let (key, item) = due.min_by_key(|(_, item)| item.due)?;
        let (_, mut trigger) = item.due.take()?;
        if item.next_resync.is_some_and(|at| at <= now) {
            trigger = Trigger::Resync;
        }
        if trigger == Trigger::Resync {
            item.next_resync = None;
        }
        item.running = true;
        Some((key.clone(), trigger))
    }

    /// Records the result of a reconcile. `jitter` lies between 0 and 1 and spreads the next due
    /// time.
    pub fn finish(&mut self, key: &K, outcome: Outcome, now: Instant, jitter: f64) {
        let Some(item) = self.items.get_mut(key) else { return };
        if item.removed {
            self.items.remove(key);
            return;
        }
        item.running = false;
        let resync = match outcome {
            Outcome::Done => {
                item.backoff.reset();
                Some(*item.next_resync.get_or_insert(now + spread(self.resync, jitter)))
            }
            Outcome::Idle => None,
            Outcome::Failed => Some(now + spread(item.backoff.next_exact(), jitter)),
        };
        item.due = match item.due {
            // Changed while it ran: due at once, and after a failure with nothing counted as
            // unchanged.
            Some((at, _)) if outcome == Outcome::Failed => Some((at, Trigger::Resync)),
            Some(changed) => Some(changed),
            None => resync.map(|at| (at, Trigger::Resync)),
        };
    }
}

impl Item {
    fn make_due(&mut self, now: Instant, trigger: Trigger) {
        let trigger = match self.due {
            Some((at, due)) if at <= now => trigger.max(due),
            Some(_) | None if self.backoff.is_failing() => Trigger::Resync,
            Some(_) | None => trigger,
        };
        self.due = Some((self.due.map_or(now, |(at, _)| at.min(now)), trigger));
    }
}
