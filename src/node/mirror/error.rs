//! Why the Secrets of a class are not what it asks for.
//!
//! Texts name the class, the Secret and the fix, and contain no value; they become events on pods.

use std::fmt;
use std::io;

use crate::kubernetes::{ClassError, GetError};
use crate::model::{ClassRef, Reason};
use crate::secret::{self, Excerpt};

/// Why one Secret, or all Secrets of a class, are not what the class asks for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// One of the class's secretObjects asks for something impossible.
    #[error("class {class}: spec.secretObjects[{index}]{}: {mistake}", SecretName(.name))]
    Mistake { class: ClassRef, index: usize, name: String, mistake: Mistake },
    #[error("class {class}: {source}")]
    Secret { class: ClassRef, source: secret::Error },
    #[error("class {class}: the files of the volume cannot be read: {source}")]
    Files { class: ClassRef, source: io::Error },
    #[error(transparent)]
    Class(#[from] ClassError),
    #[error(transparent)]
    Pod(#[from] GetError),
}

/// What is wrong with a secretObject.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mistake {
    #[error(transparent)]
    Secret(#[from] secret::Mistake),
    /// Another secretObject of the class, at this index, has the same name.
    #[error("secretName is that of secretObjects[{0}] too: put all keys of a Secret into one secretObject")]
    NameTwice(usize),
}

impl Error {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Error::Mistake { mistake: Mistake::Secret(mistake), .. } => mistake.reason(),
            Error::Mistake { mistake: Mistake::NameTwice(_), .. } => Reason::ClassInvalid,
            Error::Secret { source, .. } => source.reason(),
            Error::Files { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => Reason::TooLarge,
            Error::Files { .. } => Reason::Internal,
            Error::Class(error) => error.reason(),
            Error::Pod(error) => error.reason(),
        }
    }
}

struct SecretName<'a>(&'a str);

impl fmt::Display for SecretName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            name => write!(f, " (secretName {})", Excerpt(name)),
        }
    }
}
