//! Why Azure did not return an object or a token, in one line for the pod's owner.
//!
//! A text names the host, the status, the codes and the fix; it never contains a body, a secret or
//! a token. The caller adds the object and the class.

use std::fmt;
use std::time::Duration;

use super::cloud::CloudResource;
use super::connection_fault::ConnectionFault;
use super::endpoint::{Endpoint, Service};
use super::error_text::{self, seconds};
use super::refusal::Refusal;
use crate::compute;
use crate::model::Reason;

/// Why a request is not retried any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The deadline passed, or would pass before the next try.
    Deadline,
    /// The service asks for a wait that is longer than the time left.
    RetryAfter(Duration),
    /// The limit of tries.
    Tries,
}

/// An error of this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The HTTPS client could not be built: most often for lack of CA certificates, at the start.
    #[error(
        "cannot build the HTTPS client: {0}; provide CA certificates in the system's folder (/etc/ssl/certs), or set \
         SSL_CERT_FILE or SSL_CERT_DIR"
    )]
    Client(String),
    /// The credential cannot be used as it is.
    #[error("the credential cannot be used: {0}")]
    Credential(&'static str),
    /// The key of the certificate was not read: the queue of its namespace is full, or the deadline
    /// passed.
    #[error("the certificate in the pod's Secret: {0}")]
    Compute(compute::Error),
    /// The private key of a certificate is damaged.
    #[error("the private key in the pod's Secret is damaged: {0}; store the certificate and its key there again")]
    DamagedKey(&'static str),
    /// Entra ID refused a certificate that has expired.
    #[error(
        "{last}; the certificate in the pod's Secret expired on {date}: renew it, and add the new one to the application"
    )]
    CertificateExpired {
        /// The day of its expiration.
        date: String,
        /// The refusal.
        last: Box<Error>,
    },
    /// Identity binding does not work in this cluster, or temporarily.
    #[error("cannot find the AKS token proxy: {0}")]
    TokenProxy(String),
    /// A response that is not a success.
    #[error("{}", error_text::refusal(.0))]
    Refused(Box<Refusal>),
    /// There was no connection, or it broke.
    #[error("{}", error_text::unreachable(*.service, .host, .fault, *.proxied))]
    Unreachable {
        /// The service.
        service: Service,
        /// Its host.
        host: String,
        /// The cause.
        fault: ConnectionFault,
        /// Whether the environment names a proxy for https.
        proxied: bool,
    },
    /// No response in time.
    #[error(
        "no answer from {host} within {}; check the network between the node and it (firewall, network policy, \
         private endpoint, proxy)",
        seconds(.limit)
    )]
    NoResponse {
        /// The host.
        host: String,
        /// The time limit.
        limit: Duration,
    },
    /// The response is not one of this service: another server answers in its place, or its format
    /// changed.
    #[error(
        "{host} did not answer as {service} does: {fault}; check the vault's name, the cloud, and any proxy in between"
    )]
    UnexpectedResponse {
        /// The service that was expected.
        service: Service,
        /// The host.
        host: String,
        /// What is wrong with the response.
        fault: &'static str,
    },
    /// The vault asks for a token of a foreign resource, as a fake vault would to use it there.
    #[error("{}", error_text::foreign_challenge(.host, .asked.as_deref(), .resource))]
    ForeignChallenge {
        /// The vault's host.
        host: String,
        /// The host of the resource that the vault names, if that is a plain https address.
        asked: Option<String>,
        /// The resource that the cloud allows.
        resource: CloudResource,
    },
    /// The response is larger than its limit.
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
    /// A request outside of the vault or authority to which it is confined. It was not sent.
    #[error("a request to another address than {expected} was not sent")]
    OutOfBounds {
        /// The host and path to which requests are confined.
        expected: String,
    },
    /// A transient error, and no time or tries left.
    #[error("{}", gave_up(.stop, *.tries, .waited, .last))]
    GaveUp {
        /// Why the request is not retried any more.
        stop: StopReason,
        /// The number of tries.
        tries: u32,
        /// How long all of them took.
        waited: Duration,
        /// The error of the last try.
        last: Box<Error>,
    },
    /// The request was not sent: requests to the vault are paused, or other requests used its
    /// budget.
    #[error("{}", queue_timeout(.host, .waited, .last.as_deref()))]
    QueueTimeout {
        /// The vault's host.
        host: String,
        /// How long the request waited for its turn.
        waited: Duration,
        /// The vault's last error, if requests are paused.
        last: Option<Box<Error>>,
    },
    /// The request was not sent: pods of the namespace used all fetches that a namespace may have.
    #[error(
        "{limit} fetches for pods of namespace {namespace} are running, which is the limit of a namespace, and none \
         completed within {}: look for SecretProviderClasses of the namespace whose vaults do not answer",
        seconds(.waited)
    )]
    NamespaceLimit {
        /// The pod's namespace.
        namespace: String,
        /// The limit of concurrent fetches.
        limit: usize,
        /// How long the request waited.
        waited: Duration,
    },
    /// The SDK failed without one of our errors as the cause. Its own text may quote a body, and is
    /// left out.
    #[error("the Azure SDK failed in a request to {host} ({kind}); this is a fault of this program")]
    Sdk {
        /// The host.
        host: String,
        /// The kind of error, in our words.
        kind: &'static str,
    },
}

impl Error {
    /// The error for a response that the service does not give.
    pub(super) fn unexpected(endpoint: Endpoint<'_>, fault: &'static str) -> Error {
        Error::UnexpectedResponse { service: endpoint.service, host: endpoint.host.to_owned(), fault }
    }

    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Client(_) => Reason::TlsUntrusted,
            Error::Credential(_) => Reason::CredentialsMissing,
            Error::Compute(error) => error.reason(),
            Error::DamagedKey(_) => Reason::CredentialsRejected,
            Error::Refused(refusal) => refusal.reason(),
            Error::Unreachable { service, fault, .. } => fault.reason(*service),
            Error::NoResponse { .. } | Error::NamespaceLimit { .. } => Reason::Timeout,
            Error::UnexpectedResponse { service: Service::KeyVault, .. } | Error::ForeignChallenge { .. } => {
                Reason::VaultUnavailable
            }
            Error::UnexpectedResponse { service: Service::EntraId | Service::TokenProxy | Service::Imds, .. } => {
                Reason::IdentityUnavailable
            }
            Error::TooLarge { .. } | Error::TooManyVersions { .. } => Reason::TooLarge,
            Error::GaveUp { last, .. }
            | Error::CertificateExpired { last, .. }
            | Error::QueueTimeout { last: Some(last), .. } => last.reason(),
            Error::QueueTimeout { last: None, .. } => Reason::Throttled,
            Error::TokenProxy(_) => Reason::IdentityUnavailable,
            Error::OutOfBounds { .. } | Error::Sdk { .. } => Reason::Internal,
        }
    }

    /// Whether the same request may succeed when it is retried.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.is_transient(),
            Error::Unreachable { fault, .. } => fault.is_transient(),
            Error::NoResponse { .. } => true,
            Error::Client(_)
            | Error::Credential(_)
            | Error::Compute(_)
            | Error::DamagedKey(_)
            | Error::CertificateExpired { .. }
            | Error::TokenProxy(_)
            | Error::UnexpectedResponse { .. }
            | Error::ForeignChallenge { .. }
            | Error::TooLarge { .. }
            | Error::TooManyVersions { .. }
            | Error::OutOfBounds { .. }
            | Error::GaveUp { .. }
            | Error::QueueTimeout { .. }
            | Error::NamespaceLimit { .. }
            | Error::Sdk { .. } => false,
        }
    }

    /// The wait that the service asks for before the next try.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused(refusal) => refusal.retry_after,
            Error::Client(_)
            | Error::Credential(_)
            | Error::Compute(_)
            | Error::DamagedKey(_)
            | Error::CertificateExpired { .. }
            | Error::TokenProxy(_)
            | Error::Unreachable { .. }
            | Error::NoResponse { .. }
            | Error::UnexpectedResponse { .. }
            | Error::ForeignChallenge { .. }
            | Error::TooLarge { .. }
            | Error::TooManyVersions { .. }
            | Error::OutOfBounds { .. }
            | Error::GaveUp { .. }
            | Error::QueueTimeout { .. }
            | Error::NamespaceLimit { .. }
            | Error::Sdk { .. } => None,
        }
    }
}

fn queue_timeout(host: &str, waited: &Duration, last: Option<&Error>) -> String {
    let waited = seconds(waited);
    match last {
        Some(last) => format!(
            "requests to {host} are paused (it asked us to back off, or keeps failing); gave up after {waited}; the \
             last answer: {last}"
        ),
        None => format!(
            "gave up after {waited}, as other requests of this node use the whole budget of {host}; spread the \
             objects over more vaults, or raise --vault-requests-per-second"
        ),
    }
}

fn gave_up(stop: &StopReason, tries: u32, waited: &Duration, last: &dyn fmt::Display) -> String {
    let (waited, tries) = (seconds(waited), if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") });
    match stop {
        StopReason::Deadline => format!("timed out after {waited} and {tries}; the last: {last}"),
        StopReason::RetryAfter(wait) => {
            format!("gave up after {waited}, as the wait of {} is longer than the time left: {last}", seconds(wait))
        }
        StopReason::Tries => format!("gave up after {tries} in {waited}; the last: {last}"),
    }
}
