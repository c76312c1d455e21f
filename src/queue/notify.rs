//! Notifications of changes by key: sent without waiting, kept until the subscriber reads them.
//!
//! A subscriber gets each key once with its newest value, however often it changed meanwhile. Used
//! for classes, pods, statuses and volumes.
//!
//! # Guarantees
//! At most [`KEYS`] keys wait for a subscriber. If more change, the batch says that it overflowed,
//! and the subscriber has to check everything.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// The most keys that wait for one subscriber; a multiple of the pods that a node may run.
pub const KEYS: usize = 2048;

/// Sends changes to all subscribers. Cheap to clone; all clones have the same subscribers.
pub struct Notifier<K, V> {
    subscribers: Arc<Mutex<Subscribers<K, V>>>,
}

type Subscribers<K, V> = Vec<Weak<Inbox<K, V>>>;

/// Receives the changes that are sent after [`Notifier::subscribe`].
pub struct Subscription<K, V> {
    inbox: Arc<Inbox<K, V>>,
}

/// The changes since the last batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<K, V> {
    /// Each key that changed, with its newest value, in no order.
    pub changed: Vec<(K, V)>,
    /// More keys changed than are listed.
    pub overflowed: bool,
}

struct Inbox<K, V> {
    waiting: Mutex<Waiting<K, V>>,
    filled: Notify,
}

struct Waiting<K, V> {
    changed: HashMap<K, V>,
    overflowed: bool,
}

impl<K: Eq + Hash + Clone, V: Clone> Notifier<K, V> {
    /// A notifier without subscribers.
    pub fn new() -> Notifier<K, V> {
        Notifier { subscribers: Arc::default() }
    }

    /// Sends a change of `key`; a newer value replaces an unread one. Never waits.
    pub fn send(&self, key: K, value: V) {
        lock(&self.subscribers).retain(|subscriber| match subscriber.upgrade() {
            Some(inbox) => {
                inbox.put(key.clone(), value.clone());
                true
            }
            None => false,
        });
    }

    /// Adds a subscriber.
    pub fn subscribe(&self) -> Subscription<K, V> {
        let waiting = Waiting { changed: HashMap::new(), overflowed: false };
        let inbox = Arc::new(Inbox { waiting: Mutex::new(waiting), filled: Notify::new() });
        lock(&self.subscribers).push(Arc::downgrade(&inbox));
        Subscription { inbox }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Default for Notifier<K, V> {
    fn default() -> Notifier<K, V> {
        Notifier::new()
    }
}

impl<K, V> Clone for Notifier<K, V> {
    fn clone(&self) -> Notifier<K, V> {
        Notifier { subscribers: Arc::clone(&self.subscribers) }
    }
}

impl<K: Eq + Hash, V> Subscription<K, V> {
    /// Waits for a change, and returns all. Cancel-safe.
    pub async fn next(&self) -> Batch<K, V> {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.inbox.filled.notified().await;
        }
    }

    /// The changes since the last batch, if any.
    pub fn take(&self) -> Option<Batch<K, V>> {
        let mut waiting = lock(&self.inbox.waiting);
        let empty = waiting.changed.is_empty() && !waiting.overflowed;
        let overflowed = std::mem::take(&mut waiting.overflowed);
        (!empty).then(|| Batch { changed: waiting.changed.drain().collect(), overflowed })
    }
}

impl<K: Eq + Hash, V> Inbox<K, V> {
    fn put(&self, key: K, value: V) {
        let mut waiting = lock(&self.waiting);
        let full = waiting.changed.len() >= KEYS;
        match waiting.changed.entry(key) {
            Entry::Occupied(mut known) => drop(known.insert(value)),
            Entry::Vacant(_) if full => waiting.overflowed = true,
            Entry::Vacant(new) => drop(new.insert(value)),
        }
        drop(waiting);
        self.filled.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one insertion, removal or assignment, so that a panic leaves no half-made
    // entry.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> fmt::Debug for Notifier<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for Subscription<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_comes_once_with_its_newest_value() {
        let notifier = Notifier::new();
        notifier.send("before", 0);
        let subscription = notifier.subscribe();
        assert_eq!(subscription.take(), None);
        for value in 1..=3 {
            notifier.send("a", value);
        }
        assert_eq!(subscription.take(), Some(Batch { changed: vec![("a", 3)], overflowed: false }));
        assert_eq!(subscription.take(), None);
    }

    #[test]
    fn more_keys_than_fit_are_an_overflow() {
        let notifier = Notifier::new();
        let subscription = notifier.subscribe();
        (0..=KEYS).for_each(|key| notifier.send(key, ()));
        // A key that waits already still fits.
        notifier.send(0, ());
        let batch = subscription.take().unwrap();
        assert_eq!((batch.changed.len(), batch.overflowed), (KEYS, true));
        assert_eq!(subscription.take(), None);
    }

    #[tokio::test]
    async fn every_subscriber_gets_every_change_and_a_dropped_one_is_removed() {
        let notifier = Notifier::new();
        let (one, other) = (notifier.subscribe(), notifier.subscribe());
        drop(notifier.subscribe());
        let waits = tokio::spawn(async move { one.next().await.changed });
        tokio::task::yield_now().await;
        notifier.clone().send(1, ());
        assert_eq!(waits.await.unwrap(), [(1, ())]);
        assert_eq!(other.next().await.changed, [(1, ())]);
        notifier.send(2, ());
        assert_eq!(lock(&notifier.subscribers).len(), 1);
    }
}
