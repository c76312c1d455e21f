//! Where SecretProviderClasses come from.
//!
//! The seam with two real sides (docs/decisions.md#d16): the Kubernetes API, and a directory of
//! YAML manifests. Does not read a class's parameters; control goes on to `provider`, which does.

mod directory;
mod error;
mod manifest;

pub use directory::Directory;
pub use error::{Broken, Error};

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::info;

use crate::kubernetes::ClassCache;
use crate::model::{Class, ClassRef};
use crate::queue::notify::Subscription;

/// How often a directory is looked at while somebody wants to know of changes.
const LOOK: Duration = Duration::from_secs(1);

/// The limits of a directory of manifests.
pub mod limits {
    /// The largest file in bytes; the API server would not take a larger object either.
    pub const FILE: usize = 1 << 20;
    /// The most manifest files in the directory.
    pub const FILES: usize = 4096;
    /// The most classes in all files together.
    pub const CLASSES: usize = 10_000;
    /// How many broken files, and how many namespaces, an error names.
    pub const LISTED: usize = 5;
}

/// A source of SecretProviderClasses.
#[derive(Debug, Clone)]
pub enum Classes {
    /// The Kubernetes API.
    Kubernetes(ClassCache),
    /// A directory of YAML manifests.
    Directory(Directory),
}

/// Tells when classes may have changed.
#[derive(Debug)]
pub struct Changes {
    /// What is told; nothing of a directory.
    told: Option<Subscription<ClassRef, ()>>,
    /// When the files are worth a look, which costs a few stat calls.
    looks: Interval,
}

impl Changes {
    fn new(told: Option<Subscription<ClassRef, ()>>) -> Changes {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Changes { told, looks }
    }

    /// Waits until it is worth looking again. Giving up loses nothing.
    pub async fn next(&mut self) {
        match &self.told {
            Some(told) => drop(told.next().await),
            None => drop(self.looks.tick().await),
        }
    }
}

impl Classes {
    /// What tells when classes may have changed.
    pub fn changes(&self) -> Changes {
        match self {
            Classes::Kubernetes(cache) => Changes::new(Some(cache.changes())),
            Classes::Directory(_) => Changes::new(None),
        }
    }

    /// Those of these classes that can be used, as they are known now; asks no server.
    pub async fn seen(&self, wanted: Vec<ClassRef>) -> Vec<Class> {
        match self {
            Classes::Kubernetes(cache) => cache.seen(&wanted),
            Classes::Directory(directory) => {
                let directory = directory.clone();
                let look = move || wanted.iter().filter_map(|class| directory.get(class).ok()).collect();
                tokio::task::spawn_blocking(look).await.unwrap_or_default()
            }
        }
    }

    /// The class of this name as it is now.
    ///
    /// # Errors
    /// No such class, or one that cannot be used as it is written; see [`Error`].
    pub async fn get(&self, class: &ClassRef) -> Result<Class, Error> {
        let found = match self {
            Classes::Kubernetes(cache) => cache.get(class).await.map_err(Error::from),
            Classes::Directory(directory) => {
                let (directory, wanted) = (directory.clone(), class.clone());
                // Reading files blocks, and a directory may be on a network.
                let read = tokio::task::spawn_blocking(move || directory.get(&wanted)).await;
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
