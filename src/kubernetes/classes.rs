//! Classes as the API server has them: what a watch has told, and a look of its own for what it has not.
//!
//! Does not wait for the watch: a class that it does not have yet is asked for directly, and so is every class while the
//! watch is broken. `watch` fills the cache; control comes from `crate::classes`.
//!
//! # Guarantees
//! One malformed object hides no other. While the API server is away, classes that were seen before can still be had.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::core::ApiResource;
use tokio::time::timeout;
use tracing::warn;

use super::class_object::{self, Entry};
use super::client::Connection;
use super::error::{ClassError, Failure};
use super::objects::Objects;
use crate::model::{Class, ClassRef};
use crate::queue::notify::{News, Subscription};

/// How long one look may take; the publish has a deadline of its own.
const LOOK: Duration = Duration::from_secs(10);

/// The classes of a cluster. Cheap to clone; all clones share what is known.
#[derive(Debug, Clone)]
pub struct ClassCache {
    pub(super) connection: Connection,
    known: Arc<Mutex<Known>>,
    news: News<ClassRef, ()>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<ClassRef, Entry>,
    /// Whether `entries` follow the server at this moment.
    live: bool,
}

impl ClassCache {
    /// A cache that knows nothing yet; [`ClassCache::follow`] fills it.
    pub fn new(connection: Connection) -> ClassCache {
        ClassCache { connection, known: Arc::default(), news: News::new() }
    }

    /// Those of these classes that the watch knows and that are as their schema says; asks nobody.
    pub fn seen(&self, wanted: &[ClassRef]) -> Vec<Class> {
        let known = self.lock();
        wanted.iter().filter_map(|class| known.followed(class)?.ok()).collect()
    }

    /// The class of this name as it is now.
    ///
    /// # Errors
    /// No such class, an object that is not as its schema says, or an API server that gives no answer.
    pub async fn get(&self, class: &ClassRef) -> Result<Class, ClassError> {
        let followed = self.lock().followed(class);
        if let Some(entry) = followed {
            return usable(class, entry);
        }
        match self.look(class).await {
            Ok(entry) => {
                self.lock().remember(class, &entry);
                usable(class, entry)
            }
            Err(Failure::NotFound) => {
                let elsewhere = self.lock().gone(class);
                Err(ClassError::NotFound { class: class.clone(), elsewhere })
            }
            Err(Failure::NoSuchKind) => Err(ClassError::NoSuchKind(class.clone())),
            Err(Failure::Forbidden(message)) => Err(ClassError::Forbidden { class: class.clone(), message }),
            Err(
                failure @ (Failure::AlreadyExists
                | Failure::Conflict
                | Failure::Expired
                | Failure::Refused(_)
                | Failure::Other(_)),
            ) => {
                let last = self.lock().entries.get(class).cloned();
                let why = failure.to_string();
                let Some(entry) = last else {
                    return Err(ClassError::Unavailable { class: class.clone(), why });
                };
                warn!(%class, err = %why, "the API server does not answer; the class is taken as it was seen last");
                usable(class, entry)
            }
        }
    }

    async fn look(&self, class: &ClassRef) -> Result<Entry, Failure> {
        let objects = Objects::within(&self.connection, &class.namespace, &resource());
        let object = timeout(LOOK, objects.get(&class.name)).await.unwrap_or_else(|_| Err(Failure::timeout(LOOK)))?;
        class_object::read(object).map(|(_, entry)| entry).ok_or(Failure::NotFound)
    }

    /// Takes a whole list, which the server is followed from now on.
    pub(super) fn all(&self, entries: HashMap<ClassRef, Entry>) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut *known, Known { entries, live: true });
        let gone = before.entries.keys().filter(|class| !known.entries.contains_key(class));
        let differs = |class: &&ClassRef| version(known.entries.get(class)) != version(before.entries.get(class));
        let changed: Vec<ClassRef> = gone.chain(known.entries.keys().filter(differs)).cloned().collect();
        drop(known);
        changed.into_iter().for_each(|class| self.news.tell(class, ()));
    }

    /// Notes whether the server is followed.
    pub(super) fn followed(&self, live: bool) {
        self.lock().live = live;
    }

    /// Takes one change: a class that is there now, or `None` for one that is gone.
    pub(super) fn one(&self, class: ClassRef, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.lock().entries.insert(class.clone(), entry),
            None => self.lock().entries.remove(&class),
        };
        self.news.tell(class, ());
    }

    /// Tells from now on which classes changed, came or went, as the watch brings it.
    pub fn changes(&self) -> Subscription<ClassRef, ()> {
        self.news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one insertion, removal or assignment, so that a thread that died left whole entries behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn followed(&self, class: &ClassRef) -> Option<Entry> {
        self.entries.get(class).filter(|_| self.live).cloned()
    }

    /// Keeps what a look found, unless the watch brings it anyway.
    fn remember(&mut self, class: &ClassRef, entry: &Entry) {
        if !self.live {
            self.entries.insert(class.clone(), entry.clone());
        }
    }

    /// Forgets a class that a look did not find; gives the namespaces that have one of its name.
    fn gone(&mut self, class: &ClassRef) -> Vec<String> {
        self.entries.remove(class);
        let named = self.entries.keys().filter(|other| other.name == class.name);
        let mut namespaces: Vec<String> = named.map(|other| other.namespace.to_string()).collect();
        namespaces.sort_unstable();
        namespaces
    }
}

/// What tells one content of a class from the next.
fn version(entry: Option<&Entry>) -> Option<Result<&str, &str>> {
    entry.map(|entry| entry.as_ref().map(|class| class.version.as_str()).map_err(String::as_str))
}

fn usable(class: &ClassRef, entry: Entry) -> Result<Class, ClassError> {
    entry.map_err(|why| ClassError::Invalid { class: class.clone(), why })
}

pub(super) fn resource() -> ApiResource {
    super::resource("SecretProviderClass", "secretproviderclasses")
}
