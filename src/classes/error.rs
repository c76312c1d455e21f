//! Why there is no usable class of a name.
//!
//! The texts contain upstream's words `failed to get secretproviderclass` and `not found`, for
//! which people search. They become events on pods, so they name neither other namespaces nor files
//! of the node; [`Error::detail`] does, for the driver's log.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::limits;
use crate::model::{ClassRef, Reason};

/// An unreadable manifest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The name in the directory.
    pub file: String,
    /// The reason, with the line if there is one.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.file, self.why)
    }
}

/// Why there is no usable class of a name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lookup in the Kubernetes API failed.
    #[error(transparent)]
    Cluster(#[from] crate::kubernetes::ClassError),
    /// The class does not exist.
    #[error(
        "failed to get secretproviderclass {class}: not found; the class must be in the pod's namespace{}",
        if .broken.is_empty() { "" } else { ", and some manifests of the driver cannot be read: its log names them" }
    )]
    NotFound {
        /// The requested class.
        class: ClassRef,
        /// The directory that was searched.
        directory: PathBuf,
        /// Namespaces that have a class with this name.
        elsewhere: Vec<String>,
        /// Unreadable files, which may contain the class.
        broken: Vec<Broken>,
    },
    /// Two manifests define the class.
    #[error(
        "failed to get secretproviderclass {class}: it is defined twice in the driver's manifests; remove one of them (the driver's log names the files)"
    )]
    Twice {
        /// The requested class.
        class: ClassRef,
        /// A file with the class.
        first: String,
        /// The other file; it may be the same.
        second: String,
    },
    /// The API server would reject the class.
    #[error("failed to get secretproviderclass {class}: it is invalid: {why}")]
    Invalid {
        /// The requested class.
        class: ClassRef,
        /// The file with the class.
        file: String,
        /// Field and fix.
        why: String,
    },
    /// The directory cannot be read.
    #[error("the driver's manifest directory cannot be read: {source}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The directory has too many files or classes.
    #[error("the driver's manifest directory has more than {limit} {what}")]
    TooMany {
        /// The directory.
        directory: PathBuf,
        /// "manifest files" or "classes".
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The process is shutting down, or the reading thread panicked.
    #[error("failed to get secretproviderclass {class}: reading was interrupted")]
    Interrupted {
        /// The requested class.
        class: ClassRef,
    },
}

impl Error {
    /// Directories, files and namespaces for the log; `None` if the text is complete.
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

    /// The reason. If the directory is unreadable, the class counts as missing.
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
