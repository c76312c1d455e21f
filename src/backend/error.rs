//! Why a backend did not fill a request.
//!
//! The texts are for the pod's owner and come from the backends, which name class and fix.

use super::external;
use crate::azure::provider;
use crate::model::{ClassRef, PayloadError, Reason};

/// Why a volume has no content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The built-in provider failed, for the whole class or for one object.
    #[error(transparent)]
    Azure(#[from] provider::Error),
    /// The external provider failed.
    #[error(transparent)]
    External(#[from] external::Error),
    /// Every object was fetched, but together they are not the content of a volume.
    #[error("SecretProviderClass {class}: {source}")]
    Payload {
        /// The class.
        class: ClassRef,
        /// What is wrong with them together.
        source: PayloadError,
    },
}

impl Error {
    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Azure(error) => error.reason(),
            Error::External(error) => error.reason(),
            Error::Payload { source, .. } => source.reason(),
        }
    }

    /// The error code of an external provider.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::External(error) => error.code(),
            Error::Azure(_) | Error::Payload { .. } => None,
        }
    }

    /// Whether the caller's attributes are of another pod than the volume.
    pub fn is_of_other_pod(&self) -> bool {
        matches!(self, Error::Azure(provider::Error::OtherPod(_)))
    }
}
