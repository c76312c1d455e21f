//! SecretProviderClasses from the Kubernetes API, or from a directory of YAML manifests
//! (docs/decisions.md#d16).
//!
//! Does not parse the parameters of a class: they belong to its provider.

mod directory;
mod error;
mod limits;
mod manifest;

pub use directory::Directory;
pub use error::{Broken, Error};

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::info;

use crate::kubernetes::ClassCache;
use crate::model::{Class, ClassRef};
use crate::queue::notify::Subscription;

/// How often a subscriber checks a directory for changes.
const POLL: Duration = Duration::from_secs(1);

/// A source of SecretProviderClasses.
#[derive(Debug, Clone)]
pub enum Classes {
    /// The Kubernetes API.
    Kubernetes(ClassCache),
    /// A directory of YAML manifests.
    Directory(Directory),
}

/// Wakes its owner when classes may have changed.
#[derive(Debug)]
pub struct Changes {
    /// `None` for a directory.
    watch: Option<Subscription<ClassRef, ()>>,
    /// When to check the files of a directory, which costs a few stat calls.
    polls: Interval,
}

impl Changes {
    fn new(watch: Option<Subscription<ClassRef, ()>>) -> Changes {
        let mut polls = interval(POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Changes { watch, polls }
    }

    /// Waits until classes may have changed. Cancel-safe.
    pub async fn next(&mut self) {
        match &self.watch {
            Some(watch) => drop(watch.next().await),
            None => drop(self.polls.tick().await),
        }
    }
}

impl Classes {
    /// Subscribes to changes.
    pub fn changes(&self) -> Changes {
        match self {
            Classes::Kubernetes(cache) => Changes::new(Some(cache.changes())),
            Classes::Directory(_) => Changes::new(None),
        }
    }

    /// Those of these classes that are known and valid; makes no request.
    pub async fn seen(&self, requested: Vec<ClassRef>) -> Vec<Class> {
        match self {
            Classes::Kubernetes(cache) => cache.seen(&requested),
            Classes::Directory(directory) => {
                let directory = directory.clone();
                let read = move || requested.iter().filter_map(|class| directory.get(class).ok()).collect();
                tokio::task::spawn_blocking(read).await.unwrap_or_default()
            }
        }
    }

    /// The class of this name.
    ///
    /// # Errors
    /// The class does not exist or is invalid; see [`Error`].
    pub async fn get(&self, class: &ClassRef) -> Result<Class, Error> {
        let found = match self {
            Classes::Kubernetes(cache) => cache.get(class).await.map_err(Error::from),
            Classes::Directory(directory) => {
                let (directory, reference) = (directory.clone(), class.clone());
                // Reading files blocks, and a directory may be on a network.
                let read = tokio::task::spawn_blocking(move || directory.get(&reference)).await;
                read.unwrap_or_else(|_| Err(Error::Interrupted { class: class.clone() }))
            }
        };
        found.inspect_err(|error| {
            if let Some(detail) = error.detail() {
                info!(%class, reason = %error.reason(), detail, "the class cannot be used");
            }
        })
    }
}

#[cfg(test)]
mod tests;
