//! The endpoints of the emulator: a socket, and on a cluster's socket also an SNI.

use std::sync::Arc;

/// The names under which requests to these endpoints are counted and faulted.
pub(crate) const IMDS: &str = "imds";
pub(crate) const TOKEN_PROXY: &str = "token-proxy";
pub(crate) const API_SERVER: &str = "api-server";

/// The names of the API server inside a cluster.
pub(crate) const API_SERVER_NAMES: [&str; 3] =
    ["kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "kubernetes.default"];

/// The endpoint that a request arrived on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Entra ID and Key Vault; the host of the request selects one.
    Azure,
    /// The metadata service, whatever the host.
    Imds,
    /// A token proxy of a cluster, with the path prefix of its requests.
    TokenProxy { path: Arc<str> },
    /// The API server beside a token proxy, which refuses every request.
    ApiServer,
}

impl Endpoint {
    pub(crate) fn is_token_proxy(&self) -> bool {
        matches!(self, Endpoint::TokenProxy { .. })
    }
}
