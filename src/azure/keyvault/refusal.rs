//! Pure. A response that is not a success: what an error keeps of it, and what that means.

use std::time::Duration;

use super::claims::RequiredClaims;
use super::endpoint::Service;
use super::error_codes::ErrorCodes;
use crate::model::Reason;

/// An HTTP response that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(super) service: Service,
    pub(super) host: String,
    /// As in [`Endpoint`](super::endpoint::Endpoint).
    pub(super) operation: &'static str,
    pub(super) status: u16,
    pub(super) codes: ErrorCodes,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// The client id of the identity, if it has the form of one.
    pub(super) client_id: Option<String>,
    /// The claims that the token lacks, if a vault refused it by a claims challenge.
    pub(super) claims: Option<RequiredClaims>,
}

impl Refusal {
    /// The metadata service is unavailable for a minute when the node starts or the service is
    /// updated (docs/reference/azure-provider.md#metadata-service).
    pub(super) fn is_transient(&self) -> bool {
        match self.service {
            Service::KeyVault | Service::EntraId | Service::TokenProxy => {
                matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
            }
            Service::Imds => matches!(self.status, 404 | 408 | 410 | 429 | 500..=511),
        }
    }

    /// A 404 means a missing object only with a code of the vault's own: a proxy's 404 is an
    /// outage.
    pub(super) fn reason(&self) -> Reason {
        match (self.service, self.status) {
            (_, 429) => Reason::Throttled,
            (Service::KeyVault, 401) => Reason::Unauthorized,
            (Service::KeyVault, 403) if self.codes.is_disabled() => Reason::ObjectDisabled,
            (Service::KeyVault, 403) => Reason::Forbidden,
            (Service::KeyVault, 404) if self.codes.is_not_found() => Reason::ObjectNotFound,
            (Service::KeyVault, _) => Reason::VaultUnavailable,
            (Service::EntraId | Service::TokenProxy, 400 | 401 | 403) if self.codes.is_unknown_tenant() => {
                Reason::TenantNotFound
            }
            (Service::EntraId | Service::TokenProxy | Service::Imds, 400 | 401 | 403) => Reason::CredentialsRejected,
            (Service::EntraId | Service::TokenProxy | Service::Imds, _) => Reason::IdentityUnavailable,
        }
    }
}
