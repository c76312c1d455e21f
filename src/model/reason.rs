//! The reasons of failures: a closed list.
//!
//! Every error of the product has one [`Reason`]; gRPC codes, metric labels, events and conditions
//! are derived from it. Free text never becomes a label: the list is the bound
//! (docs/decisions.md#d8).

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why something failed. The names are stable: dashboards, alerts and events carry them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The stable name, as it appears in labels and events.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    /// The CSI request itself is faulty: a field is missing or malformed.
    InvalidRequest,
    /// Another operation holds the target, or it was unpublished meanwhile; the kubelet retries.
    Busy,
    /// The pod's namespace does not have the SecretProviderClass.
    ClassNotFound,
    /// The SecretProviderClass has mistakes.
    ClassInvalid,
    /// The Kubernetes API server refuses the driver: its ClusterRole or its token.
    ApiServerForbidden,
    /// The Kubernetes API server cannot be reached, or answers with an internal error.
    ApiServerUnavailable,
    /// The provider that the class names has no socket.
    ProviderNotFound,
    /// The provider that the class names has a socket, but does not answer on it.
    ProviderUnavailable,
    /// The provider that the class names returned an error, or broke the protocol.
    ProviderFailed,
    /// The provider that the class names returned files that a volume cannot have.
    ProviderReplyInvalid,
    /// The pod has no credentials, or not those that the class needs.
    CredentialsMissing,
    /// Entra ID refused the credentials: wrong or expired secret, unknown application.
    CredentialsRejected,
    /// Entra ID does not know the tenant.
    TenantNotFound,
    /// Key Vault did not accept the token (HTTP 401).
    Unauthorized,
    /// Key Vault refuses this identity (HTTP 403).
    Forbidden,
    /// The vault's host name does not resolve, or the host is not a Key Vault.
    VaultNotFound,
    /// The object or its version is not in the vault.
    ObjectNotFound,
    /// The object is disabled, not yet valid, or expired.
    ObjectDisabled,
    /// The content of the object cannot be rendered as the class asks.
    ObjectInvalid,
    /// Key Vault or Entra ID throttles requests (HTTP 429).
    Throttled,
    /// The pod's namespace asks for more computing than this node can do in time.
    Overloaded,
    /// Key Vault answers with an internal error (HTTP 5xx), or not as a Key Vault.
    VaultUnavailable,
    /// Entra ID answers with an internal error.
    IdentityUnavailable,
    /// No connection: DNS, TCP, TLS or proxy.
    NetworkUnreachable,
    /// The server's certificate is not trusted.
    TlsUntrusted,
    /// The deadline passed.
    Timeout,
    /// A response, a file or a volume exceeds its limit.
    TooLarge,
    /// The volume could not be mounted or unmounted.
    MountFailed,
    /// The files could not be written.
    WriteFailed,
    /// The Kubernetes Secret that a class asks for has another owner, or cannot be changed as the
    /// class asks.
    SecretConflict,
    /// A bug of this program.
    Internal,
}

impl Reason {
    /// The reason with this stable name.
    pub fn named(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
