//! News by key: something changed, told without waiting, kept until it is read.
//!
//! Knows nothing of what changed. Whoever tells never waits; whoever listens gets each key once with its newest value,
//! however often it changed meanwhile. Used for classes, pods, statuses and volumes.
//!
//! # Guarantees
//! At most [`KEYS`] keys wait for a listener. What exceeds that is not lost without a word: the listener is told to look
//! at everything.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// The most keys that wait for one listener; some times what a node may run.
pub const KEYS: usize = 2048;

/// Tells of changes. Cheap to clone; all clones have the same listeners.
pub struct News<K, V> {
    listeners: Arc<Mutex<Listeners<K, V>>>,
}

type Listeners<K, V> = Vec<Weak<Inbox<K, V>>>;

/// Listens; hears what is told from its making on.
pub struct Subscription<K, V> {
    inbox: Arc<Inbox<K, V>>,
}

/// What changed since the last look.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<K, V> {
    /// Each key that changed, with its newest value, in no order.
    pub changed: Vec<(K, V)>,
    /// More changed than is listed: look at everything.
    pub more: bool,
}

struct Inbox<K, V> {
    waiting: Mutex<Waiting<K, V>>,
    filled: Notify,
}

struct Waiting<K, V> {
    changed: HashMap<K, V>,
    more: bool,
}

impl<K: Eq + Hash + Clone, V: Clone> News<K, V> {
    /// News without listeners.
    pub fn new() -> News<K, V> {
        News { listeners: Arc::default() }
    }

    /// Tells that `key` changed; a newer value takes an older one's place. Returns at once.
    pub fn tell(&self, key: K, value: V) {
        lock(&self.listeners).retain(|listener| match listener.upgrade() {
            Some(inbox) => {
                inbox.put(key.clone(), value.clone());
                true
            }
            None => false,
        });
    }

    /// A new listener.
    pub fn subscribe(&self) -> Subscription<K, V> {
        let waiting = Waiting { changed: HashMap::new(), more: false };
        let inbox = Arc::new(Inbox { waiting: Mutex::new(waiting), filled: Notify::new() });
        lock(&self.listeners).push(Arc::downgrade(&inbox));
        Subscription { inbox }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Default for News<K, V> {
    fn default() -> News<K, V> {
        News::new()
    }
}

impl<K, V> Clone for News<K, V> {
    fn clone(&self) -> News<K, V> {
        News { listeners: Arc::clone(&self.listeners) }
    }
}

impl<K: Eq + Hash, V> Subscription<K, V> {
    /// Waits until something has changed; gives everything that did. Losing a race in a `select!` loses no news.
    pub async fn next(&self) -> Batch<K, V> {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.inbox.filled.notified().await;
        }
    }

    /// What has changed since the last look, if anything.
    pub fn take(&self) -> Option<Batch<K, V>> {
        let mut waiting = lock(&self.inbox.waiting);
        let empty = waiting.changed.is_empty() && !waiting.more;
        let more = std::mem::take(&mut waiting.more);
        (!empty).then(|| Batch { changed: waiting.changed.drain().collect(), more })
    }
}

impl<K: Eq + Hash, V> Inbox<K, V> {
    fn put(&self, key: K, value: V) {
        let mut waiting = lock(&self.waiting);
        let full = waiting.changed.len() >= KEYS;
        match waiting.changed.entry(key) {
            Entry::Occupied(mut known) => drop(known.insert(value)),
            Entry::Vacant(_) if full => waiting.more = true,
            Entry::Vacant(new) => drop(new.insert(value)),
        }
        drop(waiting);
        self.filled.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one insertion, removal or assignment, so that a thread that died left whole entries behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> fmt::Debug for News<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("News").finish_non_exhaustive()
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
        let news = News::new();
        news.tell("before", 0);
        let listener = news.subscribe();
        assert_eq!(listener.take(), None);
        for value in 1..=3 {
            news.tell("a", value);
        }
        assert_eq!(listener.take(), Some(Batch { changed: vec![("a", 3)], more: false }));
        assert_eq!(listener.take(), None);
    }

    #[test]
    fn what_does_not_fit_is_told_as_more() {
        let news = News::new();
        let listener = news.subscribe();
        (0..=KEYS).for_each(|key| news.tell(key, ()));
        // One that waits already still fits.
        news.tell(0, ());
        let batch = listener.take().unwrap();
        assert_eq!((batch.changed.len(), batch.more), (KEYS, true));
        assert_eq!(listener.take(), None);
    }

    #[tokio::test]
    async fn every_listener_hears_everything_and_a_gone_one_is_forgotten() {
        let news = News::new();
        let (one, other) = (news.subscribe(), news.subscribe());
        drop(news.subscribe());
        let waits = tokio::spawn(async move { one.next().await.changed });
        tokio::task::yield_now().await;
        news.clone().tell(1, ());
        assert_eq!(waits.await.unwrap(), [(1, ())]);
        assert_eq!(other.next().await.changed, [(1, ())]);
        news.tell(2, ());
        assert_eq!(lock(&news.listeners).len(), 1);
    }
}
