//! Maps a reason to a gRPC status: one exhaustive table.
//!
//! The kubelet treats Unavailable, DeadlineExceeded, ResourceExhausted, Aborted and Canceled as
//! "may have happened", so only Busy is Aborted and the others are never used
//! (docs/decisions.md#d8, docs/reference/kubelet.md#error-codes). The text becomes the pod's event.

use tonic::{Code, Status};

use super::request::InvalidRequest;
use crate::model::{PodRef, Reason};
use crate::node::volume::{Error, TargetPath};

/// The gRPC code of a reason.
pub fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequest => Code::InvalidArgument,
        Reason::Busy => Code::Aborted,
        Reason::MountFailed | Reason::WriteFailed | Reason::Internal => Code::Internal,
        Reason::ClassNotFound
        | Reason::ClassInvalid
        | Reason::ApiServerForbidden
        | Reason::ApiServerUnavailable
        | Reason::ProviderNotFound
        | Reason::ProviderUnavailable
        | Reason::ProviderFailed
        | Reason::ProviderReplyInvalid
        | Reason::CredentialsMissing
        | Reason::CredentialsRejected
        | Reason::TenantNotFound
        | Reason::Unauthorized
        | Reason::Forbidden
        | Reason::VaultNotFound
        | Reason::ObjectNotFound
        | Reason::ObjectDisabled
        | Reason::ObjectInvalid
        | Reason::Throttled
        | Reason::Overloaded
        | Reason::VaultUnavailable
        | Reason::IdentityUnavailable
        | Reason::NetworkUnreachable
        | Reason::TlsUntrusted
        | Reason::Timeout
        | Reason::TooLarge
        | Reason::SecretConflict => Code::Unknown,
    }
}

/// The status of a failed publish.
pub(super) fn publish_failed(pod: &PodRef, error: &Error) -> Status {
    let reason = error.reason();
    Status::new(code(reason), format!("failed to mount secrets store objects for pod {pod}: {error} ({reason})"))
}

/// The status of a failed unpublish.
pub(super) fn unpublish_failed(target: &TargetPath, error: &Error) -> Status {
    let reason = error.reason();
    Status::new(code(reason), format!("failed to unpublish {target}: {error} ({reason})"))
}

/// The status of a refused request.
pub(super) fn refused(refusal: &InvalidRequest) -> Status {
    Status::new(code(Reason::InvalidRequest), format!("{refusal} ({})", Reason::InvalidRequest))
}
