//! Why a class or an object of it has no files.
//!
//! The texts are for the pod's owner: they name the class, the object, the field and the fix, never
//! the value of a secret.

use std::fmt;

use super::credentials::CredentialsError;
use super::encode::RenderError;
use super::mistake::{Mistakes, NearMiss};
use super::service_account::{OtherPod, TokenError};
use super::versions::VersionsError;
use crate::azure::keyvault::{self, CloudFileError, NameError};
use crate::compute;
use crate::model::{ClassRef, Reason};

/// Why a class or an object of it has no files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call's attributes are of another pod than the volume. Names no class, since the pod must
    /// not learn about classes of another namespace.
    #[error(transparent)]
    OtherPod(#[from] OtherPod),
    /// The class has mistakes.
    #[error("SecretProviderClass {class}: {mistakes}")]
    Mistakes {
        /// The class.
        class: ClassRef,
        /// All of them.
        mistakes: Mistakes,
    },
    /// The pod's Secret is not a service principal.
    #[error("SecretProviderClass {class}, vault {vault}: {source}{}", Hints(.near_misses))]
    Credentials {
        /// The class.
        class: ClassRef,
        /// The vault's name.
        vault: String,
        /// What is missing.
        source: CredentialsError,
        /// Misspelt parameters, which may be why this identity was selected.
        near_misses: Vec<NearMiss>,
    },
    /// The pod's service account token is missing or refused.
    #[error("SecretProviderClass {class}: {source}")]
    Token {
        /// The class.
        class: ClassRef,
        /// What is missing.
        source: TokenError,
    },
    /// A certificate or an archive was not read: the queue of its namespace is full, or the
    /// deadline passed.
    #[error("SecretProviderClass {class}: {what}: {source}")]
    Compute {
        /// The class.
        class: ClassRef,
        /// The keys of the pod's Secret, or type and name of the object.
        what: String,
        /// Why it was not read.
        source: compute::Error,
    },
    /// The object has no versions for its history.
    #[error("SecretProviderClass {class}: {source}")]
    Versions {
        /// The class.
        class: ClassRef,
        /// What is wrong with the versions.
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
    /// A name is valid in a class, but not in a URL.
    #[error("SecretProviderClass {class}: {field}: {source}")]
    Name {
        /// The class.
        class: ClassRef,
        /// The field that holds the name.
        field: &'static str,
        /// What is wrong with it.
        source: NameError,
    },
    /// The vault does not return an object, or Entra ID no token for it.
    #[error("SecretProviderClass {class}{}: {source}", Object(.object))]
    Vault {
        /// The class.
        class: ClassRef,
        /// Type and name of the object; `None` before the first request.
        object: Option<String>,
        /// The answer.
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
