//! Where SecretProviderClasses come from.
//!
//! The seam with two real sides (design decision 16): the Kubernetes API, and a directory of YAML manifests.
//! Does not read a class's parameters; control goes on to `provider`, which does.

mod directory;
mod error;
mod manifest;

pub use directory::Directory;
pub use error::{Broken, Error};

use crate::k8s::ClassCache;
use crate::model::{Class, ClassRef};

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

impl Classes {
    /// The class of this name as it is now.
    ///
    /// # Errors
    /// No such class, or one that cannot be used as it is written; see [`Error`].
    pub async fn get(&self, class: &ClassRef) -> Result<Class, Error> {
        match self {
            Classes::Kubernetes(cache) => Ok(cache.get(class).await?),
            Classes::Directory(directory) => {
                let (directory, wanted) = (directory.clone(), class.clone());
                // Reading files blocks, and a directory may be on a network.
                let read = tokio::task::spawn_blocking(move || directory.get(&wanted)).await;
                read.unwrap_or_else(|_| Err(Error::Interrupted { class: class.clone() }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
