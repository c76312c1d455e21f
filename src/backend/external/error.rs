//! Why an external provider did not fill a volume.
//!
//! The texts are for the pod's owner: the provider, its message, and the fix. Messages of a
//! provider have no secret that it was sent.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::limits;
use crate::model::{ClassRef, FileNameError, PayloadError, Reason};

/// Why a volume of an external provider was not filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be a socket's.
    #[error(
        "class {class}: provider not found: {provider:?} is not a provider name: use up to 30 letters, digits, '-' and '_'"
    )]
    Name {
        /// The class.
        class: ClassRef,
        /// The name in the class, truncated.
        provider: String,
    },
    /// The provider was not found, or failed.
    #[error("class {class}: provider {provider}: {fault}")]
    Provider {
        /// The class.
        class: ClassRef,
        /// The provider.
        provider: String,
        /// What is wrong.
        fault: ProviderFault,
    },
    /// The provider is `keyvault-csi provider`, with the error that the built-in one would have.
    #[error("{text}")]
    Ours {
        /// The provider's reason.
        reason: Reason,
        /// Its text, which names the class.
        text: String,
    },
}

/// A fault of a provider or its reply.
#[derive(Debug, thiserror::Error)]
pub enum ProviderFault {
    /// No directory has the socket.
    #[error(
        "provider not found: there is no {}; is the provider's DaemonSet installed and running on this node, and is its socket in one of these directories?",
        listed(.0)
    )]
    NotFound(Vec<PathBuf>),
    /// The socket refuses connections.
    #[error("no provider answers on {}: {source} (waited {} s); is the provider running on this node?", socket.display(), waited.as_secs())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// How long the call waited for it.
        waited: Duration,
        /// The kernel's error.
        source: io::Error,
    },
    /// No answer before the deadline.
    #[error("no answer within {} s; the provider's log may say what it waits for", .0.as_secs())]
    Slow(Duration),
    /// The call failed.
    #[error("rpc error: code = {code} desc = {message}")]
    Call {
        /// The name of the gRPC code.
        code: String,
        /// The provider's message.
        message: String,
    },
    /// The reply has an error code.
    #[error("mount request failed with provider error code {code}; the provider's log has the cause")]
    Code {
        /// The code, redacted.
        code: String,
    },
    /// The reply is above the limit.
    #[error(
        "the reply is larger than {0} bytes: raise --max-call-recv-msg-size (chart: maxCallRecvMsgSize), or spread the objects over several classes"
    )]
    TooLarge(usize),
    /// The reply names no object versions.
    #[error("the reply has no object versions, so that it is not a volume's content: an error of the provider")]
    NoVersions,
    /// More object versions than a status object can hold.
    #[error("the reply has {0} bytes of object versions, more than a status object can hold: an error of the provider")]
    Versions(usize),
    /// The provider wrote into the target itself.
    #[error(
        "the reply has no files: providers that write into the volume themselves are not supported; a version of the provider that returns files is needed"
    )]
    NoFiles,
    /// A path that a volume cannot have.
    #[error("the reply has the path {path:?}: {source}")]
    Path {
        /// The path, truncated.
        path: String,
        /// What is wrong with it.
        source: FileNameError,
    },
    /// A negative mode.
    #[error("the reply has the mode {mode} for {path:?}; modes are 0 to 0777")]
    Mode {
        /// The path.
        path: String,
        /// The mode.
        mode: i32,
    },
    /// The files do not fit into one volume.
    #[error("the reply's files do not fit into one volume: {}", payload(.0))]
    Payload(#[from] PayloadError),
}

impl Error {
    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Name { .. } => Reason::ProviderNotFound,
            Error::Provider { fault, .. } => fault.reason(),
            Error::Ours { reason, .. } => *reason,
        }
    }

    /// The provider's own error code.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Provider { fault: ProviderFault::Code { code }, .. } => Some(code),
            Error::Name { .. } | Error::Provider { .. } | Error::Ours { .. } => None,
        }
    }
}

impl ProviderFault {
    fn reason(&self) -> Reason {
        match self {
            ProviderFault::NotFound(_) => Reason::ProviderNotFound,
            ProviderFault::Unreachable { .. } => Reason::ProviderUnavailable,
            ProviderFault::Slow(_) => Reason::Timeout,
            ProviderFault::Call { .. }
            | ProviderFault::Code { .. }
            | ProviderFault::NoVersions
            | ProviderFault::NoFiles => Reason::ProviderFailed,
            ProviderFault::TooLarge(_) => Reason::TooLarge,
            ProviderFault::Versions(_) | ProviderFault::Path { .. } | ProviderFault::Mode { .. } => {
                Reason::ProviderReplyInvalid
            }
            ProviderFault::Payload(PayloadError::TooLarge { .. }) => Reason::TooLarge,
            ProviderFault::Payload(_) => Reason::ProviderReplyInvalid,
        }
    }
}

fn listed(sockets: &[PathBuf]) -> String {
    let sockets: Vec<String> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    sockets.join(" and no ")
}

/// The texts of the model are about objects of Key Vault.
fn payload(error: &PayloadError) -> String {
    let cut = |name: &str| name.chars().take(limits::SHOWN).collect::<String>();
    match error {
        PayloadError::Duplicate(path) => format!("two have the path {:?}", cut(path)),
        PayloadError::FileAndDirectory { file, below } => {
            format!("{:?} is a file and, because of {:?}, a directory", cut(file), cut(below))
        }
        PayloadError::TooLarge { bytes, limit } => format!(
            "they need {bytes} bytes, each in whole pages; at most {limit} are possible: raise --max-call-recv-msg-size (chart: maxCallRecvMsgSize)"
        ),
        PayloadError::Empty => "there are none".to_owned(),
    }
}
