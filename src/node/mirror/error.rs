//! Why a class's Secrets are not what they should be.
//!
//! Texts name the class, the Secret and the fix, and hold no value; they become the pods' event. Control goes to
//! `pass`, which tells them.

use std::io;

use super::mistake::Mistake;
use super::plan::Refusal;
use crate::compute;
use crate::kubernetes::{LookError, SecretError, SecretRef};
use crate::model::{ClassRef, Reason};

/// Why one Secret, or all of a class, are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The class asks for something that cannot be.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// The Secret is not ours to write.
    #[error("class {class}: Secret {secret} {}", advice(.refusal, .class))]
    LeftAlone {
        /// The class that asks for it.
        class: ClassRef,
        /// The Secret.
        secret: SecretRef,
        /// Why.
        refusal: Refusal,
    },
    /// The Secret cannot be read or written.
    #[error("class {class}: cannot write Secret {secret}: {source}")]
    Write {
        /// The class that asks for it.
        class: ClassRef,
        /// The Secret.
        secret: SecretRef,
        /// What the API server says.
        source: SecretError,
    },
    /// A file was not taken apart: too much of its namespace waits, or it came too late.
    #[error("class {class}: file {file}: {source}")]
    Compute {
        /// The class.
        class: ClassRef,
        /// The path of the file in the volume.
        file: String,
        /// Why it was not.
        source: compute::Error,
    },
    /// The volume cannot be read.
    #[error("class {class}: the files of the volume cannot be read: {source}")]
    Files {
        /// The class.
        class: ClassRef,
        /// What the kernel says.
        source: io::Error,
    },
    /// The class cannot be had.
    #[error(transparent)]
    Class(#[from] crate::kubernetes::ClassError),
    /// A pod cannot be had.
    #[error(transparent)]
    Look(#[from] LookError),
}

impl Error {
    /// The reason of this error.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Error::Mistake(mistake) => mistake.reason(),
            Error::LeftAlone { .. } => Reason::SecretConflict,
            Error::Write { source, .. } => match source {
                SecretError::Forbidden(_) | SecretError::OwnersForbidden => Reason::ApiServerForbidden,
                SecretError::Exists | SecretError::Changed | SecretError::Refused(_) => Reason::SecretConflict,
                SecretError::Gone | SecretError::Unavailable(_) => Reason::ApiServerUnavailable,
            },
            Error::Compute { source, .. } => source.reason(),
            Error::Files { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => Reason::TooLarge,
            Error::Files { .. } => Reason::Internal,
            Error::Class(error) => error.reason(),
            Error::Look(error) => error.reason(),
        }
    }
}

fn advice(refusal: &Refusal, class: &ClassRef) -> String {
    match refusal {
        Refusal::Ending => "is being deleted; it is made anew when it is gone".to_owned(),
        Refusal::NotOurs => "is there already and was not made by a driver (it lacks the label \
            secrets-store.csi.k8s.io/managed=true), so it is left alone: choose another secretName, delete it, or put the \
            label on it to hand it over"
            .to_owned(),
        Refusal::OtherType { has, wanted } => {
            format!("has type {has}, but the class asks for {wanted}; a type cannot change: delete the Secret, and it is made anew")
        }
        Refusal::OtherClass(other) => format!(
            "is written for class {}/{other}, which asks for other content: give one of the two another secretName",
            class.namespace
        ),
    }
}
