//! What can go wrong between a class and its files.
//!
//! The texts are for the pod's owner: they name the class, the object, the field and the fix, and never a secret's value.
//! How they reach people is decided in `csi`, which read [`Error::reason`].

use std::fmt;

use super::credentials::CredentialsError;
use super::encode::RenderError;
use super::mistake::{Mistakes, NearMiss};
use super::service_account::{OtherPod, TokenError};
use super::versions::VersionsError;
use crate::azure::keyvault::{self, CloudFileError, NameError};
use crate::compute;
use crate::model::{ClassRef, Reason};

/// Why a class did not become files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call speaks of another pod than the one whose volume it is. Names no class: whose that is, is not this pod's to learn.
    #[error(transparent)]
    OtherPod(#[from] OtherPod),
    /// The class cannot be used as it is written.
    #[error("SecretProviderClass {class}: {mistakes}")]
    Mistakes {
        /// The class.
        class: ClassRef,
        /// Everything to change.
        mistakes: Mistakes,
    },
    /// The pod brings no usable service principal.
    #[error("SecretProviderClass {class}, vault {vault}: {source}{}", Hints(.near_misses))]
    Credentials {
        /// The class.
        class: ClassRef,
        /// The vault's name.
        vault: String,
        /// What is missing.
        source: CredentialsError,
        /// Misspelt parameters, one of which may be why this mode was selected.
        near_misses: Vec<NearMiss>,
    },
    /// The pod brings no usable service account token.
    #[error("SecretProviderClass {class}: {source}")]
    Token {
        /// The class.
        class: ClassRef,
        /// What is missing.
        source: TokenError,
    },
    /// A certificate or an archive was not read: too much of its namespace waits, or it came too late.
    #[error("SecretProviderClass {class}: {what}: {source}")]
    Compute {
        /// The class.
        class: ClassRef,
        /// The keys of the pod's Secret, or type and name of the object.
        what: String,
        /// Why it was not read.
        source: compute::Error,
    },
    /// There are no versions to make the history of.
    #[error("SecretProviderClass {class}: {source}")]
    Versions {
        /// The class.
        class: ClassRef,
        /// What is wrong with the versions there are.
        source: VersionsError,
    },
    /// A value is not in the form that the class asks for.
    #[error("SecretProviderClass {class}, vault {vault}: {source}")]
    Render {
        /// The class.
        class: ClassRef,
        /// The vault's name.
        vault: String,
        /// The object and what is wrong with it.
        source: RenderError,
    },
    /// The class's custom cloud file cannot be used.
    #[error("SecretProviderClass {class}: {source}")]
    Cloud {
        /// The class.
        class: ClassRef,
        /// What is wrong with the file.
        source: CloudFileError,
    },
    /// A name passed the class's rules, but not those of a URL.
    #[error("SecretProviderClass {class}: {field}: {source}")]
    Name {
        /// The class.
        class: ClassRef,
        /// The field that holds the name.
        field: &'static str,
        /// What is wrong with it.
        source: NameError,
    },
    /// The vault, or Entra ID on the way to it, does not give an object.
    #[error("SecretProviderClass {class}{}: {source}", Object(.object))]
    Vault {
        /// The class.
        class: ClassRef,
        /// Type and name of the object; `None` when none was asked for yet.
        object: Option<String>,
        /// What was answered.
        source: keyvault::Error,
    },
}

impl Error {
    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            Error::OtherPod(_) => Reason::InvalidRequest,
            Error::Mistakes { .. } => Reason::ClassInvalid,
            Error::Credentials { source, .. } => source.reason(),
            Error::Compute { source, .. } => source.reason(),
            Error::Token { .. } => Reason::CredentialsMissing,
            Error::Versions { source, .. } => match source {
                VersionsError::Unknown { .. } => Reason::ObjectNotFound,
                VersionsError::Disabled { .. } | VersionsError::NoneEnabled { .. } => Reason::ObjectDisabled,
            },
            Error::Render { .. } => Reason::ObjectInvalid,
            Error::Cloud { .. } | Error::Name { .. } => Reason::ClassInvalid,
            Error::Vault { source, .. } => source.reason(),
        }
    }
}

struct Object<'a>(&'a Option<String>);

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|object| write!(f, ", {object}"))
    }
}

struct Hints<'a>(&'a [NearMiss]);

impl fmt::Display for Hints<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|miss| write!(f, "; {miss}"))
    }
}
