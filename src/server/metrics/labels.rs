//! Label sets and bounds that several sets of metrics share, with upstream's names.

use prometheus_client::encoding::EncodeLabelSet;

use crate::model::Reason;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Os {
    pub(super) os_type: &'static str,
}

pub(super) const OS: Os = Os { os_type: std::env::consts::OS };

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Backoff {
    pub(super) os_type: &'static str,
    pub(super) reason: &'static str,
}

/// The reasons for which requests to a vault are paused: its Retry-After, and an open circuit.
pub const BACKOFF_REASONS: [&str; 2] = ["retry_after", "circuit_open"];

/// The `service_name` of upstream's provider.
pub(super) const PROVIDER_SERVICE: &str = "csi-secrets-store-provider-azure";

/// The bounds of `keyvault_request` and `grpc_request`, in seconds, as upstream's provider has them
/// (docs/reference/azure-provider.md#metrics).
pub(super) const REQUEST_BUCKETS: [f64; 14] = [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 15.0, 30.0];

/// The bounds of the driver's durations, in seconds: 11 geometric steps, as upstream has them
/// (docs/reference/csi-driver.md#metrics).
pub(super) const DURATION_BUCKETS: [f64; 11] =
    [0.1, 0.1349, 0.1821, 0.2456, 0.3314, 0.4472, 0.6034, 0.8142, 1.0986, 1.4823, 2.0];

/// Upstream's value of the `error_type` label for a reason
/// (docs/reference/csi-driver.md#error-types).
pub(super) fn error_type(reason: Reason) -> &'static str {
    match reason {
        Reason::ClassNotFound | Reason::ApiServerForbidden | Reason::ApiServerUnavailable => {
            "SecretProviderClassNotFound"
        }
        Reason::ProviderNotFound => "",
        Reason::InvalidRequest | Reason::Busy | Reason::MountFailed | Reason::SecretConflict | Reason::Internal => {
            "FailedToMount"
        }
        Reason::WriteFailed | Reason::TooLarge | Reason::ProviderReplyInvalid => "FileWriteError",
        Reason::ClassInvalid
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
        | Reason::ProviderUnavailable
        | Reason::ProviderFailed => "GRPCProviderError",
    }
}
