//! Why Azure did not give what was asked for, in words for the pod's owner.
//!
//! Names the host, the status, the codes and what to do; never a body, a secret or a token. The object's type and name, and the
//! class, are added by the caller. Control comes from every file of this module and goes to `provider`.

use std::fmt;
use std::io;
use std::time::Duration;

use super::advice;
use super::answer::Codes;
use crate::compute;
use crate::model::Reason;

/// Which service gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// A vault.
    KeyVault,
    /// The authority, which gives out tokens.
    EntraId,
    /// The token proxy of an AKS cluster, which stands before the authority; or the cluster's API server.
    TokenProxy,
    /// The node's metadata service, which gives out tokens of managed identities.
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

/// An HTTP answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(super) service: Service,
    pub(super) host: String,
    /// What the request was for, see [`Place`](super::http::Place).
    pub(super) what: &'static str,
    pub(super) status: u16,
    pub(super) codes: Codes,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// The client id that asked, when it has the form of one.
    pub(super) client_id: Option<String>,
}

/// Why no connection came about, or why it broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The name is known to be unknown.
    NameUnknown,
    /// The name could not be looked up.
    NameLookup,
    /// The server's certificate is not signed by an authority that we trust.
    UnknownIssuer,
    /// The server's certificate is for another name, expired, or otherwise not acceptable.
    Certificate,
    /// The TLS handshake failed for another cause.
    Handshake,
    /// No connection within the limit.
    ConnectTimeout,
    /// The operating system's word for it.
    Io(io::ErrorKind),
    /// The proxy, or the network on the way, did not let us through.
    NoConnection,
    /// The connection ended before the answer did.
    CutOff,
}

/// Why no further try was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The deadline passed, or lies before the next try.
    Deadline,
    /// The service asks to wait for this long, which is longer than the deadline allows.
    AskedToWait(Duration),
    /// The limit of tries.
    Tries,
}

/// An error of this module.
///
/// Its text is one line for the pod's owner; it repeats neither the object nor the class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The HTTPS client could not be built; it happens at the start, and most often for lack of CA certificates.
    #[error(
        "no HTTPS client: {0}; provide a bundle of CA certificates in the system's place (/etc/ssl/certs), or name one by SSL_CERT_FILE or SSL_CERT_DIR"
    )]
    Client(String),
    /// The credential cannot be used as it is.
    #[error("the credential cannot be used: {0}")]
    Credential(&'static str),
    /// The key that logs in was not read: too much of its namespace waits, or it came too late.
    #[error("the certificate in the pod's Secret: {0}")]
    Compute(compute::Error),
    /// The private key of a certificate is damaged.
    #[error("the private key in the pod's Secret is damaged: {0}; store the certificate and its key there again")]
    DamagedKey(&'static str),
    /// A certificate that has ended was used to log in, in vain.
    #[error(
        "{last}; the certificate in the pod's Secret ended on {ended}: renew it, and add the new one to the application"
    )]
    CertificateEnded {
        /// When it ended.
        ended: String,
        /// What was answered.
        last: Box<Error>,
    },
    /// Identity binding does not work in this cluster, or for the moment.
    #[error("the way to the AKS token proxy cannot be found: {0}")]
    TokenProxy(String),
    /// A service answered, and said no.
    #[error("{}", advice::refusal(.0))]
    Refused(Box<Refusal>),
    /// There was no connection, or it broke.
    #[error("{}", advice::unreachable(.service, .host, .link, .proxied))]
    Unreachable {
        /// The service that was to be reached.
        service: Service,
        /// Its host.
        host: String,
        /// What went wrong.
        link: Link,
        /// Whether the environment names a proxy for https.
        proxied: bool,
    },
    /// The host kept silent.
    #[error(
        "no answer from {host} within {}; check the way from the node to it (firewall, network policy, private endpoint, proxy)",
        advice::seconds(.limit)
    )]
    NoAnswer {
        /// The host.
        host: String,
        /// How long we waited.
        limit: Duration,
    },
    /// The answer is not one that the service gives; a proxy or another server stands in its place, or its shape is new.
    #[error(
        "{host} did not answer as {service} does: {what}; check the vault's name, the cloud, and any proxy on the way"
    )]
    NotAzure {
        /// The service that was expected.
        service: Service,
        /// The host.
        host: String,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// The vault asks for a token of a resource that is not its own: a fake vault would, to use the token elsewhere.
    #[error("{host} asks for a token of another resource, and got none; check cloudName and the cloud's file")]
    ForeignChallenge {
        /// The vault's host.
        host: String,
    },
    /// The answer is larger than its limit.
    #[error("the answer of {host} is larger than {limit} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// An object has more versions than are read.
    #[error(
        "{host} lists more than {limit} versions of the object; give objectVersion instead of objectVersionHistory"
    )]
    TooManyVersions {
        /// The host.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// A request was about to leave the vault or the authority that it belongs to, and was not sent.
    #[error("a request left the vault: it was to go elsewhere than to {expected}, and was not sent")]
    LeftVault {
        /// What it is confined to.
        expected: String,
    },
    /// Trying again might have helped, but the time or the tries are used up.
    #[error("{}", advice::gave_up(.stop, .tries, .waited, .last))]
    GaveUp {
        /// Why no further try was made.
        stop: Stop,
        /// How many tries there were.
        tries: u32,
        /// How long all of it took.
        waited: Duration,
        /// The last real cause.
        last: Box<Error>,
    },
    /// The request was not sent: the vault throttles this node or only fails, or others used the node's budget up.
    #[error("{}", advice::held_back(.host, .waited, .last.as_deref()))]
    HeldBack {
        /// The vault's host.
        host: String,
        /// How long the request waited for its turn.
        waited: Duration,
        /// What the vault last did wrong, if it is the vault's doing.
        last: Option<Box<Error>>,
    },
    /// The request was not sent: the pods of the namespace had all the connections that one namespace may have.
    #[error("{}", advice::crowded(.namespace, .limit, .waited))]
    Crowded {
        /// The pod's namespace.
        namespace: String,
        /// How many fetches of one namespace may be under way.
        limit: usize,
        /// How long the request waited for one of them to end.
        waited: Duration,
    },
    /// The SDK failed without a cause that we know. Its own text is left out, as it may quote a body.
    #[error("the Azure SDK failed on the way to {host} ({kind}); this is a fault of this program")]
    Sdk {
        /// The host.
        host: String,
        /// The kind of error, in our words.
        kind: &'static str,
    },
}

impl Error {
    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Client(_) => Reason::TlsUntrusted,
            Error::Credential(_) => Reason::CredentialsMissing,
            Error::Compute(error) => error.reason(),
            Error::DamagedKey(_) => Reason::CredentialsRejected,
            Error::Refused(refusal) => refusal.reason(),
            Error::Unreachable { service, link, .. } => link.reason(*service),
            Error::NoAnswer { .. } | Error::Crowded { .. } => Reason::Timeout,
            Error::NotAzure { service: Service::KeyVault, .. } | Error::ForeignChallenge { .. } => {
                Reason::VaultUnavailable
            }
            Error::NotAzure { service: Service::EntraId | Service::TokenProxy | Service::Imds, .. } => {
                Reason::IdentityUnavailable
            }
            Error::TooLarge { .. } | Error::TooManyVersions { .. } => Reason::TooLarge,
            Error::GaveUp { last, .. }
            | Error::CertificateEnded { last, .. }
            | Error::HeldBack { last: Some(last), .. } => last.reason(),
            Error::HeldBack { last: None, .. } => Reason::Throttled,
            Error::TokenProxy(_) => Reason::IdentityUnavailable,
            Error::LeftVault { .. } | Error::Sdk { .. } => Reason::Internal,
        }
    }

    /// Whether the same request may succeed when it is sent again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.is_transient(),
            Error::Unreachable { link, .. } => link.is_transient(),
            Error::NoAnswer { .. } => true,
            Error::Client(_)
            | Error::Credential(_)
            | Error::Compute(_)
            | Error::DamagedKey(_)
            | Error::CertificateEnded { .. }
            | Error::TokenProxy(_)
            | Error::NotAzure { .. }
            | Error::ForeignChallenge { .. }
            | Error::TooLarge { .. }
            | Error::TooManyVersions { .. }
            | Error::LeftVault { .. }
            | Error::GaveUp { .. }
            | Error::HeldBack { .. }
            | Error::Crowded { .. }
            | Error::Sdk { .. } => false,
        }
    }

    /// How long the service asks to wait before the next try.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused(refusal) => refusal.retry_after,
            Error::Client(_)
            | Error::Credential(_)
            | Error::Compute(_)
            | Error::DamagedKey(_)
            | Error::CertificateEnded { .. }
            | Error::TokenProxy(_)
            | Error::Unreachable { .. }
            | Error::NoAnswer { .. }
            | Error::NotAzure { .. }
            | Error::ForeignChallenge { .. }
            | Error::TooLarge { .. }
            | Error::TooManyVersions { .. }
            | Error::LeftVault { .. }
            | Error::GaveUp { .. }
            | Error::HeldBack { .. }
            | Error::Crowded { .. }
            | Error::Sdk { .. } => None,
        }
    }
}

impl Refusal {
    /// The metadata service is a small thing, which is away for a minute when the node starts or
    /// the service is updated (docs/reference/azure-provider.md#metadata-service).
    fn is_transient(&self) -> bool {
        match self.service {
            Service::KeyVault | Service::EntraId | Service::TokenProxy => {
                matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
            }
            Service::Imds => matches!(self.status, 404 | 408 | 410 | 429 | 500..=511),
        }
    }

    /// The reason of this answer. Missing and forbidden are believed only from the service itself: a proxy's 404 is an outage.
    fn reason(&self) -> Reason {
        match (self.service, self.status) {
            (_, 429) => Reason::Throttled,
            (Service::KeyVault, 401) => Reason::Unauthorized,
            (Service::KeyVault, 403) if advice::is_disabled(&self.codes) => Reason::ObjectDisabled,
            (Service::KeyVault, 403) => Reason::Forbidden,
            (Service::KeyVault, 404) if self.codes.all().any(|code| code.ends_with("NotFound")) => {
                Reason::ObjectNotFound
            }
            (Service::KeyVault, _) => Reason::VaultUnavailable,
            (Service::EntraId | Service::TokenProxy, 400 | 401 | 403) if advice::is_unknown_tenant(&self.codes) => {
                Reason::TenantNotFound
            }
            (Service::EntraId | Service::TokenProxy | Service::Imds, 400 | 401 | 403) => Reason::CredentialsRejected,
            (Service::EntraId | Service::TokenProxy | Service::Imds, _) => Reason::IdentityUnavailable,
        }
    }
}

impl Link {
    fn reason(self, service: Service) -> Reason {
        match (self, service) {
            (Link::NameUnknown, Service::KeyVault) => Reason::VaultNotFound,
            (Link::UnknownIssuer | Link::Certificate, _) => Reason::TlsUntrusted,
            (Link::ConnectTimeout, _) => Reason::Timeout,
            (Link::NameUnknown, Service::EntraId | Service::TokenProxy | Service::Imds)
            | (Link::NameLookup | Link::Handshake | Link::Io(_) | Link::NoConnection | Link::CutOff, _) => {
                Reason::NetworkUnreachable
            }
        }
    }

    /// An unknown name and a bad certificate stay so for longer than we can wait.
    fn is_transient(self) -> bool {
        match self {
            Link::NameUnknown | Link::UnknownIssuer | Link::Certificate => false,
            Link::NameLookup
            | Link::Handshake
            | Link::ConnectTimeout
            | Link::Io(_)
            | Link::NoConnection
            | Link::CutOff => true,
        }
    }
}
