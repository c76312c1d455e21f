//! Why a class cannot be had.
//!
//! The texts keep the words people search for, `failed to get secretproviderclass` and `not found`. They become the
//! pod's event, so that they name neither other namespaces nor files of the node; [`Error::detail`] does, for the
//! driver's log.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::limits;
use crate::model::{ClassRef, Reason};

/// A manifest file that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file's name in the directory.
    pub file: String,
    /// Why, with the line where there is one.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.file, self.why)
    }
}

/// Why a class cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API does not give it.
    #[error(transparent)]
    Cluster(#[from] crate::kubernetes::ClassError),
    /// There is no such class.
    #[error(
        "failed to get secretproviderclass {class}: not found; the class must be in the pod's namespace{}",
        if .broken.is_empty() { "" } else { ", and some manifests of the driver cannot be read: its log names them" }
    )]
    NotFound {
        /// The class that was asked for.
        class: ClassRef,
        /// The directory that was searched.
        directory: PathBuf,
        /// Namespaces that have a class of this name.
        elsewhere: Vec<String>,
        /// Files it might be in, if they could be read.
        broken: Vec<Broken>,
    },
    /// The class is there twice.
    #[error(
        "failed to get secretproviderclass {class}: it is defined twice in the driver's manifests; remove one of them (the driver's log names the files)"
    )]
    Twice {
        /// The class that was asked for.
        class: ClassRef,
        /// A file that has it.
        first: String,
        /// The other file, or the same one again.
        second: String,
    },
    /// The API server would refuse the class.
    #[error("failed to get secretproviderclass {class}: it is invalid: {why}")]
    Invalid {
        /// The class that was asked for.
        class: ClassRef,
        /// The file that has it.
        file: String,
        /// What is wrong, and the fix.
        why: String,
    },
    /// The directory itself cannot be used.
    #[error("the driver's manifest directory cannot be read: {source}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The directory has more files or classes than [`limits`] allow.
    #[error("the driver's manifest directory has more than {limit} {what}")]
    TooMany {
        /// The directory.
        directory: PathBuf,
        /// Of which there are too many.
        what: &'static str,
        /// How many are possible.
        limit: usize,
    },
    /// The process is stopping, or the reading thread died.
    #[error("failed to get secretproviderclass {class}: reading was interrupted")]
    Interrupted {
        /// The class that was asked for.
        class: ClassRef,
    },
}

impl Error {
    /// What the log says besides: directories, files and namespaces. `None` where the text says all.
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::NotFound { directory, elsewhere, broken, .. } => {
                Some(format!("searched {}{}{}", directory.display(), Elsewhere(elsewhere), Unread(broken)))
            }
            Error::Twice { first, second, .. } => Some(format!("it is in {first:?} and in {second:?}")),
            Error::Invalid { file, .. } => Some(format!("it is in {file:?}")),
            Error::Directory { directory, .. } | Error::TooMany { directory, .. } => {
                Some(format!("the directory is {}", directory.display()))
            }
            Error::Cluster(error) => error.detail(),
            Error::Interrupted { .. } => None,
        }
    }

    /// The reason of this error. A directory that cannot be read is a class that is not there.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Cluster(error) => error.reason(),
            Error::NotFound { .. } | Error::Directory { .. } => Reason::ClassNotFound,
            Error::Twice { .. } | Error::Invalid { .. } | Error::TooMany { .. } => Reason::ClassInvalid,
            Error::Interrupted { .. } => Reason::Internal,
        }
    }
}

struct Elsewhere<'a>(&'a [String]);

impl fmt::Display for Elsewhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("; a class of that name is in namespace ")?;
        list(f, self.0)
    }
}

struct Unread<'a>(&'a [Broken]);

impl fmt::Display for Unread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("; it may be in a file that cannot be read: ")?;
        list(f, self.0)
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
    for (at, one) in all.iter().take(limits::LISTED).enumerate() {
        write!(f, "{}{one}", if at == 0 { "" } else { ", " })?;
    }
    match all.len().saturating_sub(limits::LISTED) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}
