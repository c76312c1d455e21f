//! SecretProviderClasses from the API server: a watch cache, with a GET on a miss.
//!
//! Never waits for the watch: a class that is not cached yet is read directly, and so is every
//! class while the watch is broken.
//!
//! # Guarantees
//! A malformed object affects no other. While the API server is unreachable, the last known state
//! of a class is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::class_object::{self, Entry};
use super::client::Connection;
use super::error::{ClassError, RequestError};
use super::objects::Objects;
use super::resources;
use crate::model::{Class, ClassRef};
use crate::queue::notify::{Notifier, Subscription};

/// The deadline of one request; the publish has its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The classes of a cluster. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub struct ClassCache {
    pub(super) connection: Connection,
    known: Arc<Mutex<Known>>,
    notifier: Notifier<ClassRef, ()>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<ClassRef, Entry>,
    /// Whether the watch works.
    live: bool,
}

impl ClassCache {
    /// An empty cache; [`ClassCache::follow`] fills it.
    pub fn new(connection: Connection) -> ClassCache {
        ClassCache { connection, known: Arc::default(), notifier: Notifier::new() }
    }

    /// Those of these classes that are cached and valid; makes no request.
    pub fn seen(&self, requested: &[ClassRef]) -> Vec<Class> {
        let known = self.lock();
        requested.iter().filter_map(|class| known.watched(class)?.ok()).collect()
    }

    /// The class from the cache, with a GET on a miss.
    ///
    /// # Errors
    /// The class does not exist or is invalid, or the GET failed.
    pub async fn get(&self, class: &ClassRef) -> Result<Class, ClassError> {
        let cached = self.lock().watched(class);
        if let Some(entry) = cached {
            return usable(class, entry);
        }
        match self.read(class).await {
            Ok(entry) => {
                self.lock().insert_unwatched(class, &entry);
                usable(class, entry)
            }
            Err(RequestError::NotFound) => {
                let elsewhere = self.lock().remove(class);
                Err(ClassError::NotFound { class: class.clone(), elsewhere })
            }
            Err(RequestError::NoSuchKind) => Err(ClassError::NoSuchKind(class.clone())),
            Err(RequestError::Forbidden(message)) => Err(ClassError::Forbidden { class: class.clone(), message }),
            Err(
                failure @ (RequestError::AlreadyExists
                | RequestError::Conflict
                | RequestError::Expired
                | RequestError::Refused(_)
                | RequestError::Other(_)),
            ) => {
                let last = self.lock().entries.get(class).cloned();
                let why = failure.to_string();
                let Some(entry) = last else {
                    return Err(ClassError::Unavailable { class: class.clone(), why });
                };
                warn!(%class, err = %why, "the API server does not answer; using the last known state of the class");
                usable(class, entry)
            }
        }
    }

    async fn read(&self, class: &ClassRef) -> Result<Entry, RequestError> {
        let objects = Objects::within(&self.connection, &class.namespace, &resources::classes());
        let object = timeout(REQUEST_TIMEOUT, objects.get(&class.name))
            .await
            .unwrap_or_else(|_| Err(RequestError::timeout(REQUEST_TIMEOUT)))?;
        class_object::read(object).map(|(_, entry)| entry).ok_or(RequestError::NotFound)
    }

    /// Replaces the cache by a complete list, from which the watch continues.
    pub(super) fn replace(&self, entries: HashMap<ClassRef, Entry>) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut *known, Known { entries, live: true });
        let gone = before.entries.keys().filter(|class| !known.entries.contains_key(class));
        let differs = |class: &&ClassRef| version(known.entries.get(class)) != version(before.entries.get(class));
        let changed: Vec<ClassRef> = gone.chain(known.entries.keys().filter(differs)).cloned().collect();
        drop(known);
        changed.into_iter().for_each(|class| self.notifier.send(class, ()));
    }

    /// Records whether the watch works.
    pub(super) fn set_watched(&self, live: bool) {
        self.lock().live = live;
    }

    /// Applies one change; `None` removes the class.
    pub(super) fn update(&self, class: ClassRef, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.lock().entries.insert(class.clone(), entry),
            None => self.lock().entries.remove(&class),
        };
        self.notifier.send(class, ());
    }

    /// Subscribes to added, changed and removed classes.
    pub fn changes(&self) -> Subscription<ClassRef, ()> {
        self.notifier.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one insertion, removal or assignment, so that a panic leaves no half-made
        // entry.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn watched(&self, class: &ClassRef) -> Option<Entry> {
        self.entries.get(class).filter(|_| self.live).cloned()
    }

    /// Caches the result of a GET while the watch does not work.
    fn insert_unwatched(&mut self, class: &ClassRef, entry: &Entry) {
        if !self.live {
            self.entries.insert(class.clone(), entry.clone());
        }
    }

    /// Removes a class that does not exist; returns the namespaces that have one with its name.
    fn remove(&mut self, class: &ClassRef) -> Vec<String> {
        self.entries.remove(class);
        let named = self.entries.keys().filter(|other| other.name == class.name);
        let mut namespaces: Vec<String> = named.map(|other| other.namespace.to_string()).collect();
        namespaces.sort_unstable();
        namespaces
    }
}

/// Distinguishes one state of a class from the next.
fn version(entry: Option<&Entry>) -> Option<Result<&str, &str>> {
    entry.map(|entry| entry.as_ref().map(|class| class.version.as_str()).map_err(String::as_str))
}

fn usable(class: &ClassRef, entry: Entry) -> Result<Class, ClassError> {
    entry.map_err(|why| ClassError::Invalid { class: class.clone(), why })
}
