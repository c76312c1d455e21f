//! Errors of volumes.
//!
//! The texts address the owner of the pod: object, cause and fix. They contain no secret.
//! `csi::status` maps the reason to a gRPC code.

use std::io;
use std::time::Duration;

use crate::backend;
use crate::model::{ClassRef, InvalidName, Reason};
use crate::server::metrics::Cause;

/// The step of mounting or unmounting that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountFailure {
    /// Inspecting the target.
    Inspect,
    /// Making the target directory.
    MakeDirectory,
    /// Mounting the tmpfs.
    Mount,
    /// Unmounting, and removing content and directory.
    Unmount,
}

/// Why the attribute `secretProviderClass` of a volume is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassNameError {
    /// The attribute is missing or empty.
    #[error(
        "secretProviderClass is not set: name the SecretProviderClass in the volume's csi.volumeAttributes.secretProviderClass"
    )]
    Missing,
    /// The value cannot be the name of an API object.
    #[error("secretProviderClass of the volume's csi.volumeAttributes: {0}")]
    Invalid(InvalidName),
}

/// Why an operation on a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume's attributes do not name a class.
    #[error(transparent)]
    ClassName(#[from] ClassNameError),
    /// The class does not exist or cannot be read.
    #[error(transparent)]
    Class(#[from] crate::classes::Error),
    /// The deadline passed during the lookup of the class.
    #[error(
        "class {0}: the driver could not look it up in time; is the API server slow, or the disk with its manifests?"
    )]
    ClassSlow(ClassRef),
    /// `spec.provider` is empty.
    #[error("class {0}: spec.provider is not set; set it to azure, or to the name of another provider")]
    ProviderUnset(ClassRef),
    /// `spec.parameters` is empty.
    #[error("class {0}: spec.parameters is not set; provider azure needs at least keyvaultName, tenantID and objects")]
    ParametersUnset(ClassRef),
    /// The volume is not read-only.
    #[error(
        "the volume is not read-only: set readOnly: true in the volume's csi section (the mounts alone do not suffice)"
    )]
    NotReadOnly,
    /// The fetch failed.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// The kubelet no longer delivers credentials for the volume, and the last ones were dropped.
    #[error(
        "SecretProviderClass {class}: the kubelet has brought no credentials for {} s: the CSIDriver object of this driver must have requiresRepublish: true",
        since.as_secs()
    )]
    CredentialsLapsed {
        /// The class.
        class: ClassRef,
        /// The time since it delivered the last ones.
        since: Duration,
    },
    /// The deadline passed while another operation held the target's lock.
    #[error("another operation on {target} did not end within {waited:?}; the kubelet calls again")]
    Busy {
        /// The target.
        target: String,
        /// How long this operation waited.
        waited: Duration,
    },
    /// The volume was unpublished during its publish.
    #[error("{target} was unpublished while its content was being fetched; nothing was mounted")]
    Unpublished {
        /// The target.
        target: String,
    },
    /// The parent directory of the target does not exist.
    #[error(
        "the directory above {target} does not exist: the kubelet has removed the pod's directories; nothing is mounted"
    )]
    ParentGone {
        /// The target.
        target: String,
    },
    /// The target is not a volume below the kubelet's root.
    #[error(
        "{target} is not a volume below the kubelet's root: only {root}/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount is published to, \
         without a symbolic link on the way; set --kubelet-root (chart value linux.kubeletRootDir) to the kubelet's --root-dir"
    )]
    OutsideRoot {
        /// The target.
        target: String,
        /// The root.
        root: String,
    },
    /// A file system other than tmpfs is mounted on the target.
    #[error("{target} carries a mount that is not a tmpfs; find out who mounted it and unmount it")]
    ForeignMount {
        /// The target.
        target: String,
    },
    /// The target is not a directory.
    #[error("{target} is not a directory; remove it")]
    NotADirectory {
        /// The target.
        target: String,
    },
    /// The kernel refused to inspect, mount or unmount.
    #[error("{} {target}: {source}", what.as_str())]
    Mount {
        /// The step.
        what: MountFailure,
        /// The target.
        target: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused to write.
    #[error("cannot write the files of {target}: {source}")]
    Write {
        /// The target.
        target: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The operation's task panicked.
    #[error("the operation on {target} ended unexpectedly; the driver's log has the cause")]
    TaskLost {
        /// The target.
        target: String,
    },
}

impl MountFailure {
    fn as_str(self) -> &'static str {
        match self {
            MountFailure::Inspect => "cannot find out what is mounted on",
            MountFailure::MakeDirectory => "cannot make the directory",
            MountFailure::Mount => "cannot mount a tmpfs on",
            MountFailure::Unmount => "failed to clean and unmount target path",
        }
    }
}

impl Error {
    /// The labels of this error in metrics.
    pub fn cause(&self) -> Cause<'_> {
        let code = if let Error::Backend(error) = self { error.code() } else { None };
        Cause { reason: self.reason(), code }
    }

    /// Whether the call's attributes are of another pod than the one whose volume it is.
    pub(super) fn is_of_other_pod(&self) -> bool {
        matches!(self, Error::Backend(error) if error.is_of_other_pod())
    }

    /// The reason, from the closed list.
    pub fn reason(&self) -> Reason {
        match self {
            Error::ClassName(_) | Error::NotReadOnly | Error::OutsideRoot { .. } => Reason::InvalidRequest,
            Error::Class(error) => error.reason(),
            Error::ClassSlow(_) => Reason::Timeout,
            Error::ProviderUnset(_) | Error::ParametersUnset(_) => Reason::ClassInvalid,
            Error::Backend(error) => error.reason(),
            Error::CredentialsLapsed { .. } => Reason::CredentialsMissing,
            Error::Busy { .. } | Error::Unpublished { .. } => Reason::Busy,
            Error::ParentGone { .. }
            | Error::ForeignMount { .. }
            | Error::NotADirectory { .. }
            | Error::Mount { .. } => Reason::MountFailed,
            Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => Reason::TooLarge,
            Error::Write { .. } => Reason::WriteFailed,
            Error::TaskLost { .. } => Reason::Internal,
        }
    }
}
