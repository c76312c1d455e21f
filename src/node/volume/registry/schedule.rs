//! Pure. When what is due: the clock and the dice are arguments.
//!
//! Knows keys and moments, and neither volumes nor vaults; nothing waits or runs here. Control comes from `registry`, which
//! says what there is, and from the loop, which asks what is due.
//!
//! # Guarantees
//! What runs is not given out again before it has ended. Whoever is due longest goes first. However often something is
//! hurried, between two of its starts lies [`REST`]. What took long the last time, or is [suspect](Schedule::suspect), never has
//! all places, and of those that are suspect for one cause not even all that are left: one vault or provider that is down does not
//! keep others' volumes waiting.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How many items run at a time; each fetch holds one payload in memory.
pub(in crate::node) const AT_ONCE: usize = 16;

/// The shortest time between two starts of one key.
pub(super) const REST: Duration = Duration::from_millis(500);

/// Up to which part of the interval a cycle comes early, so that groups which began together drift apart.
const JITTER: f64 = 0.1;

/// From how long a run on something counts as slow: a vault that answers takes less.
const SLOW: Duration = Duration::from_secs(5);

/// How many run at a time that were slow the last time, or are suspect.
const SLOW_AT_ONCE: usize = AT_ONCE / 2;

/// How many run at a time that are suspect for one cause.
const ALIKE_AT_ONCE: usize = SLOW_AT_ONCE / 2;

/// The longest interval that is counted with; the flag takes any.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is due when.
#[derive(Debug)]
pub(super) struct Schedule<K> {
    turns: HashMap<K, Turn>,
}

#[derive(Debug)]
struct Turn {
    due: Instant,
    /// When it last began, while it runs and afterwards.
    began: Option<Instant>,
    running: bool,
    /// Whether it was hurried while it ran: what it does now may be too old.
    again: bool,
    /// Whether its last run was slow.
    slow: bool,
    /// Whether it counts as slow however it runs, and for what cause.
    suspect: Option<Arc<str>>,
}

/// The first moment of something new: anywhere within the interval, so that a restart does not make everything due at once.
pub(super) fn first(now: Instant, interval: Duration, dice: f64) -> Instant {
    now + interval.min(LONGEST).mul_f64(dice.clamp(0.0, 1.0))
}

/// The next moment of something that began then: the interval later or a little less, so that a new value is never later
/// than the interval, or at once if it took longer than that.
fn next(began: Instant, interval: Duration, dice: f64) -> Instant {
    began + interval.min(LONGEST).mul_f64(1.0 - JITTER * dice.clamp(0.0, 1.0))
}

impl<K> Default for Schedule<K> {
    fn default() -> Schedule<K> {
        Schedule { turns: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// Has this key come up then, unless it is known already.
    pub(super) fn add(&mut self, key: &K, due: Instant) {
        let turn = || Turn { due, began: None, running: false, again: false, slow: false, suspect: None };
        self.turns.entry(key.clone()).or_insert_with(turn);
    }

    /// Has this key come up now: also a new one, and one that runs once more when it has ended.
    pub(super) fn hurry(&mut self, key: &K, now: Instant) {
        self.add(key, now);
        if let Some(turn) = self.turns.get_mut(key) {
            let soonest = turn.began.map_or(now, |began| now.max(began + REST));
            turn.due = turn.due.min(soonest);
            turn.again = turn.running;
        }
    }

    /// Has a key count as slow, from its first run on: many of one `cause` may fail together, and one does not tell of another.
    pub(super) fn suspect(&mut self, key: &K, cause: &str) {
        if let Some(turn) = self.turns.get_mut(key) {
            turn.suspect = Some(cause.into());
        }
    }

    /// Forgets a key; what runs may end.
    pub(super) fn remove(&mut self, key: &K) {
        self.turns.remove(key);
    }

    /// Gives out what is due longest and has a place; it runs until it has [ended](Schedule::ended).
    pub(super) fn take(&mut self, now: Instant) -> Option<K> {
        let taken = self.taken();
        let waiting = self.turns.iter_mut().filter(|(_, turn)| turn.may_run(&taken) && turn.due <= now);
        let (key, turn) = waiting.min_by_key(|(_, turn)| turn.due)?;
        (turn.began, turn.running, turn.again) = (Some(now), true, false);
        Some(key.clone())
    }

    /// Notes that something has ended, and when it comes up again.
    pub(super) fn ended(&mut self, key: &K, interval: Duration, dice: f64, now: Instant) {
        if let Some(turn) = self.turns.get_mut(key) {
            let began = turn.began.unwrap_or(now);
            let soonest = now.max(began + REST.min(interval));
            (turn.running, turn.slow) = (false, now >= began + SLOW);
            turn.due = if turn.again { soonest } else { next(began, interval, dice).max(soonest) };
        }
    }

    /// When something comes up next that has a place.
    pub(super) fn next(&self) -> Option<Instant> {
        let taken = self.taken();
        self.turns.values().filter(|turn| turn.may_run(&taken)).map(|turn| turn.due).min()
    }

    fn taken(&self) -> Taken {
        let slow: Vec<&Turn> = self.turns.values().filter(|turn| turn.running && turn.is_slow()).collect();
        let causes: Vec<Arc<str>> = slow.iter().filter_map(|turn| turn.suspect.clone()).collect();
        Taken { slow: slow.len(), causes }
    }
}

/// The places that what is slow has.
struct Taken {
    slow: usize,
    /// For what cause, of each that is suspect.
    causes: Vec<Arc<str>>,
}

impl Turn {
    fn may_run(&self, taken: &Taken) -> bool {
        if self.running {
            return false;
        }
        let alike = |cause: &Arc<str>| taken.causes.iter().filter(|other| *other == cause).count();
        let crowded = self.suspect.as_ref().is_some_and(|cause| alike(cause) >= ALIKE_AT_ONCE);
        !self.is_slow() || taken.slow < SLOW_AT_ONCE && !crowded
    }

    fn is_slow(&self) -> bool {
        self.slow || self.suspect.is_some()
    }
}
