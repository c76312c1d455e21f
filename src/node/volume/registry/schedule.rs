//! Pure. When each key is due: clock and jitter are arguments.
//!
//! Independent of volumes and vaults; runs nothing. The registry adds keys, the loop of
//! `node::rotation` takes them.
//!
//! # Guarantees
//! * A running key is not given out again until it is finished.
//! * The key that has been due longest goes first.
//! * Two starts of one key are at least [`MIN_DELAY`] apart, however often it is made due.
//! * Keys that were slow the last time, or are [isolated](Schedule::isolate), never use all slots,
//!   and the isolated keys of one cause not even all that are left: a vault or provider that is
//!   down does not delay the volumes of others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How many keys run at a time; a fetch holds its payload in memory.
pub(in crate::node) const AT_ONCE: usize = 16;

/// The shortest time between two starts of one key.
pub(super) const MIN_DELAY: Duration = Duration::from_millis(500);

/// The largest part of the interval by which a key is early, so that keys that started together
/// drift apart.
const JITTER: f64 = 0.1;

/// The run time from which a key counts as slow; a vault that responds takes less.
const SLOW: Duration = Duration::from_secs(5);

/// How many slow or isolated keys run at a time.
const SLOW_AT_ONCE: usize = AT_ONCE / 2;

/// How many isolated keys of one cause run at a time.
const CAUSE_AT_ONCE: usize = SLOW_AT_ONCE / 2;

/// The longest interval in use, whatever the flag says: later moments would overflow.
const MAX_INTERVAL: Duration = Duration::from_secs(366 * 24 * 3600);

/// The due times of all keys.
#[derive(Debug)]
pub(super) struct Schedule<K> {
    entries: HashMap<K, Entry>,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// The start of the current or of the last run.
    started: Option<Instant>,
    running: bool,
    /// Made due during the current run, whose result may be outdated.
    rerun: bool,
    /// Whether the last run was slow.
    slow: bool,
    /// The cause of an isolated key.
    isolated: Option<Arc<str>>,
}

/// The first due time of a new key: within the interval, so that after a restart not all keys are
/// due at once.
pub(super) fn first(now: Instant, interval: Duration, jitter: f64) -> Instant {
    now + interval.min(MAX_INTERVAL).mul_f64(jitter.clamp(0.0, 1.0))
}

/// The next due time of a key: at most the interval after its start, so that a new value is never
/// later than the interval.
fn next(started: Instant, interval: Duration, jitter: f64) -> Instant {
    started + interval.min(MAX_INTERVAL).mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0))
}

impl<K> Default for Schedule<K> {
    fn default() -> Schedule<K> {
        Schedule { entries: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// Adds a key; keeps the due time of a known one.
    pub(super) fn add(&mut self, key: &K, due: Instant) {
        let entry = || Entry { due, started: None, running: false, rerun: false, slow: false, isolated: None };
        self.entries.entry(key.clone()).or_insert_with(entry);
    }

    /// Makes the key due now; adds it if unknown, and reruns it if it is running.
    pub(super) fn run_now(&mut self, key: &K, now: Instant) {
        self.add(key, now);
        if let Some(entry) = self.entries.get_mut(key) {
            let earliest = entry.started.map_or(now, |started| now.max(started + MIN_DELAY));
            entry.due = entry.due.min(earliest);
            entry.rerun = entry.running;
        }
    }

    /// Limits a key as if it were slow: many keys of one `cause` may fail together.
    pub(super) fn isolate(&mut self, key: &K, cause: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.isolated = Some(cause.into());
        }
    }

    /// Removes a key; a current run goes on.
    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Starts the key that has been due longest and may run, until [`finish`](Schedule::finish).
    pub(super) fn take(&mut self, now: Instant) -> Option<K> {
        let used = self.used_slots();
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.may_run(&used) && entry.due <= now);
        let (key, entry) = due.min_by_key(|(_, entry)| entry.due)?;
        (entry.started, entry.running, entry.rerun) = (Some(now), true, false);
        Some(key.clone())
    }

    /// Ends the run of a key, and sets its next due time.
    pub(super) fn finish(&mut self, key: &K, interval: Duration, jitter: f64, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            let started = entry.started.unwrap_or(now);
            let earliest = now.max(started + MIN_DELAY.min(interval));
            (entry.running, entry.slow) = (false, now >= started + SLOW);
            entry.due = if entry.rerun { earliest } else { next(started, interval, jitter).max(earliest) };
        }
    }

    /// The earliest due time among the keys that may run.
    pub(super) fn next(&self) -> Option<Instant> {
        let used = self.used_slots();
        self.entries.values().filter(|entry| entry.may_run(&used)).map(|entry| entry.due).min()
    }

    fn used_slots(&self) -> UsedSlots {
        let slow: Vec<&Entry> = self.entries.values().filter(|entry| entry.running && entry.is_slow()).collect();
        let causes: Vec<Arc<str>> = slow.iter().filter_map(|entry| entry.isolated.clone()).collect();
        UsedSlots { slow: slow.len(), causes }
    }
}

/// The slots that slow and isolated keys use.
struct UsedSlots {
    slow: usize,
    /// The cause of each running isolated key.
    causes: Vec<Arc<str>>,
}

impl Entry {
    fn may_run(&self, used: &UsedSlots) -> bool {
        if self.running {
            return false;
        }
        let same = |cause: &Arc<str>| used.causes.iter().filter(|other| *other == cause).count();
        let crowded = self.isolated.as_ref().is_some_and(|cause| same(cause) >= CAUSE_AT_ONCE);
        !self.is_slow() || used.slow < SLOW_AT_ONCE && !crowded
    }

    fn is_slow(&self) -> bool {
        self.slow || self.isolated.is_some()
    }
}
