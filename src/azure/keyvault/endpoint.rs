//! Pure. Where a request goes, for errors and logs.

use std::fmt;

/// The service that answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// A vault.
    KeyVault,
    /// The authority, which issues tokens.
    EntraId,
    /// The token proxy of an AKS cluster, in front of the authority; or the cluster's API server.
    TokenProxy,
    /// The node's metadata service, which issues tokens of managed identities.
    Imds,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::KeyVault => "Key Vault",
            Service::EntraId => "Entra ID",
            Service::TokenProxy => "the AKS token proxy",
            Service::Imds => "the instance metadata service",
        })
    }
}

/// A service, its host, and the operation that a request is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint<'a> {
    pub(super) service: Service,
    pub(super) host: &'a str,
    /// `challenge`, `token` or a collection of objects.
    pub(super) operation: &'static str,
}
