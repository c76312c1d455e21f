//! Why a Secret is not what a secretObject asks for.
//!
//! Texts name the Secret and the fix, and contain no value; the caller adds the class or object
//! that asks for the Secret.

use crate::compute;
use crate::kubernetes::{SecretError, SecretRef};
use crate::model::{Namespace, Reason};

use super::mistake::Mistake;
use super::plan::Refusal;

/// Why one Secret is not what a secretObject asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The secretObject asks for something impossible.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// The Secret must not be changed.
    #[error("Secret {secret} {}", explain(.refusal, &.secret.namespace))]
    Refused { secret: SecretRef, refusal: Refusal },
    /// The API server did not let us read or write the Secret.
    #[error("cannot write Secret {secret}: {source}")]
    Request { secret: SecretRef, source: SecretError },
    /// A file was not taken apart: its namespace has too much work waiting, or the deadline passed.
    #[error("file {file}: {source}")]
    Compute {
        /// The path of the file in the volume.
        file: String,
        source: compute::Error,
    },
}

impl Error {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Error::Mistake(mistake) => mistake.reason(),
            Error::Refused { .. } => Reason::SecretConflict,
            Error::Request { source, .. } => match source {
                SecretError::Forbidden(_) | SecretError::OwnersForbidden => Reason::ApiServerForbidden,
                SecretError::Exists | SecretError::Changed | SecretError::Refused(_) => Reason::SecretConflict,
                SecretError::Gone | SecretError::Unavailable(_) => Reason::ApiServerUnavailable,
            },
            Error::Compute { source, .. } => source.reason(),
        }
    }
}

fn explain(refusal: &Refusal, namespace: &Namespace) -> String {
    match refusal {
        Refusal::Terminating => "is being deleted; it is created again once it is gone".to_owned(),
        Refusal::NotManaged { label: (key, value) } => format!(
            "exists already and was not created by a driver (it lacks the label {key}={value}), so it is not changed: \
             choose another secretName, delete it, or add the label to hand it over"
        ),
        Refusal::OtherType { stored, desired } => format!(
            "has type {stored}, but the class asks for {desired}; the type of a Secret cannot change: delete the \
             Secret, and it is created again"
        ),
        Refusal::OtherClass(other) => format!(
            "is written for class {namespace}/{other}, which asks for other content: give one of the two another \
             secretName"
        ),
    }
}
