//! What can go wrong between us and the API server, in words for people.
//!
//! Texts name the object and what to grant or do; they never hold a token, and a server's message is cut. Control goes
//! to whoever asked; `Reason` is derived in one table.

use std::error::Error as _;
use std::fmt;

use crate::model::{ClassRef, InvalidName, Reason};

/// How much of a server's message is shown, in characters.
const SHOWN: usize = 400;
/// How many namespaces an error names.
const LISTED: usize = 5;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not in a pod, or in one without a service account.
    #[error(
        "no source of SecretProviderClasses: no --manifests, no --kubeconfig, no KUBECONFIG, and the pod's service account cannot be used: {}",
        innermost(&**.0)
    )]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// A kubeconfig that cannot be used.
    #[error("the kubeconfig {from} cannot be used: {}", innermost(&**.source))]
    Kubeconfig {
        /// Where it is.
        from: String,
        /// What is wrong.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Certificates, keys or proxies that cannot be used.
    #[error("the credentials for the API server cannot be used: {}", innermost(.0))]
    Client(#[source] kube::Error),
}

/// Why a class cannot be had from the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// There is no such class.
    #[error("failed to get secretproviderclass {class}: not found; the class must be in the pod's namespace")]
    NotFound {
        /// The class that was asked for.
        class: ClassRef,
        /// Namespaces that have a class of this name. Not in the text: the pod's owner may not list them.
        elsewhere: Vec<String>,
    },
    /// The object is not one that the API server would take today.
    #[error("failed to get secretproviderclass {class}: the object is invalid: {why}")]
    Invalid {
        /// The class that was asked for.
        class: ClassRef,
        /// Field and fix.
        why: String,
    },
    /// The kind is not served.
    #[error(
        "failed to get secretproviderclass {0}: the API server does not know secretproviderclasses.secrets-store.csi.x-k8s.io/v1; install the CRDs (manifests/crds)"
    )]
    NoSuchKind(ClassRef),
    /// The driver may not read classes.
    #[error(
        "failed to get secretproviderclass {class}: {message}; grant the driver's service account get, list and watch on secretproviderclasses of secrets-store.csi.x-k8s.io (ClusterRole secretproviderclasses-role)"
    )]
    Forbidden {
        /// The class that was asked for.
        class: ClassRef,
        /// What the API server says.
        message: String,
    },
    /// The API server gives no answer that can be used.
    #[error("failed to get secretproviderclass {class}: the Kubernetes API server does not answer as it should: {why}")]
    Unavailable {
        /// The class that was asked for.
        class: ClassRef,
        /// What happened.
        why: String,
    },
}

impl ClassError {
    /// What the driver's log says besides; `None` where the text says all.
    pub fn detail(&self) -> Option<String> {
        match self {
            ClassError::NotFound { elsewhere, .. } if !elsewhere.is_empty() => {
                let (shown, more) = elsewhere.split_at(elsewhere.len().min(LISTED));
                let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
                Some(format!("a class of that name is in namespace {}{more}", shown.join(", ")))
            }
            ClassError::NotFound { .. }
            | ClassError::Invalid { .. }
            | ClassError::NoSuchKind(_)
            | ClassError::Forbidden { .. }
            | ClassError::Unavailable { .. } => None,
        }
    }

    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            ClassError::NotFound { .. } => Reason::ClassNotFound,
            ClassError::Invalid { .. } => Reason::ClassInvalid,
            ClassError::Forbidden { .. } => Reason::ApiServerForbidden,
            ClassError::NoSuchKind(_) | ClassError::Unavailable { .. } => Reason::ApiServerUnavailable,
        }
    }
}

/// Why something else than a class cannot be had from the API server.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The driver may not read it.
    #[error(
        "failed to get {what}: {message}; grant it to the driver's service account (docs/install.md has the roles)"
    )]
    Forbidden {
        /// What was asked for.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// The API server gives no answer that can be used.
    #[error("failed to get {what}: the Kubernetes API server does not answer as it should: {why}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// What happened.
        why: String,
    },
}

impl GetError {
    pub(super) fn of(what: String, failure: Failure) -> GetError {
        match failure {
            Failure::Forbidden(message) => GetError::Forbidden { what, message },
            other @ (Failure::NotFound
            | Failure::NoSuchKind
            | Failure::AlreadyExists
            | Failure::Conflict
            | Failure::Expired
            | Failure::Refused(_)
            | Failure::Other(_)) => GetError::Unavailable { what, why: other.to_string() },
        }
    }

    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            GetError::Forbidden { .. } => Reason::ApiServerForbidden,
            GetError::Unavailable { .. } => Reason::ApiServerUnavailable,
        }
    }
}

/// Why a Secret cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is there already.
    #[error("it is there already")]
    Exists,
    /// Somebody changed it meanwhile.
    #[error("somebody changed it meanwhile")]
    Changed,
    /// It is not there, or its namespace is not.
    #[error("it is not there")]
    Gone,
    /// The driver may not do this.
    #[error(
        "{0}; grant the driver get, create and patch on secrets: chart value syncSecret.enabled=true (ClusterRole secretprovidersyncing-role)"
    )]
    Forbidden(String),
    /// The driver may write it, but may not change its owners, since it may not delete it.
    #[error("the API server refuses to change its owners: {OWNERS_GRANT} (ClusterRole secretprovidersyncing-role)")]
    OwnersForbidden,
    /// The API server does not take it as it is.
    #[error("the API server refuses it: {0}")]
    Refused(String),
    /// The API server gives no answer that can be used.
    #[error("the Kubernetes API server does not answer as it should: {0}")]
    Unavailable(String),
}

impl SecretError {
    /// With the server's whole message, so that it can be searched before it is cut.
    pub(super) fn of(error: kube::Error) -> SecretError {
        match (Failure::of(&error), error) {
            (Failure::AlreadyExists, _) => SecretError::Exists,
            (Failure::Conflict, _) => SecretError::Changed,
            (Failure::NotFound | Failure::NoSuchKind, _) => SecretError::Gone,
            (Failure::Refused(_), kube::Error::Api(status)) => SecretError::Refused(status.message),
            // No right would help: its namespace is on its way out.
            (Failure::Forbidden(_), kube::Error::Api(status)) if status.message.contains("is being terminated") => {
                SecretError::Refused(status.message)
            }
            (Failure::Forbidden(_), kube::Error::Api(status)) if forbids_owners(&status.message) => {
                SecretError::OwnersForbidden
            }
            (Failure::Forbidden(_), kube::Error::Api(status)) => SecretError::Forbidden(without_user(&status.message)),
            (Failure::Other(_), kube::Error::Api(status)) => {
                SecretError::Unavailable(format!("HTTP {}: {}", status.code, status.message))
            }
            (failure @ (Failure::Forbidden(_) | Failure::Expired | Failure::Refused(_) | Failure::Other(_)), _) => {
                SecretError::Unavailable(failure.to_string())
            }
        }
    }

    /// Whether the same write can never succeed: the counterpart of [`Failure::is_final`], from which it is made.
    pub fn is_final(&self) -> bool {
        match self {
            SecretError::Refused(_) => true,
            SecretError::Exists
            | SecretError::Changed
            | SecretError::Gone
            | SecretError::Forbidden(_)
            | SecretError::OwnersForbidden
            | SecretError::Unavailable(_) => false,
        }
    }

    /// The same with a message that people can read.
    pub(super) fn cut(self) -> SecretError {
        match self {
            SecretError::Forbidden(message) => SecretError::Forbidden(cut(&message)),
            SecretError::Refused(message) => SecretError::Refused(cut(&message)),
            SecretError::Unavailable(message) => SecretError::Unavailable(cut(&message)),
            other @ (SecretError::Exists | SecretError::Changed | SecretError::Gone | SecretError::OwnersForbidden) => {
                other
            }
        }
    }
}

/// What to do where the API server asks for the right to delete an object before it lets the driver change its owners.
pub(super) const OWNERS_GRANT: &str = "its admission plug-in OwnerReferencesPermissionEnforcement asks for the right to delete \
     the object; grant it by the chart value rbac.ownerReferencesPermissionEnforcement=true";

/// Whether a refusal is that plug-in's (kubernetes/kubernetes, plugin/pkg/admission/gc/gc_admission.go).
pub(super) fn forbids_owners(message: &str) -> bool {
    message.contains("cannot set an ownerRef on a resource you can't delete")
}

/// What a failed request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The object is not there.
    NotFound,
    /// The URL is not there: no such kind.
    NoSuchKind,
    /// 401 or 403.
    Forbidden(String),
    /// An object of this name is there already.
    AlreadyExists,
    /// Somebody changed the object meanwhile.
    Conflict,
    /// The server no longer knows the version that was asked for (410).
    Expired,
    /// The server will never take this request: it is malformed or too large (400, 413, 422), or creates an object in
    /// a namespace that is being deleted (403).
    Refused(String),
    /// Everything else: no connection, a fault of the server, too many requests, no answer in time.
    Other(String),
}

impl Failure {
    pub(super) fn of(error: &kube::Error) -> Failure {
        let kube::Error::Api(status) = error else {
            return Failure::Other(innermost(error));
        };
        match (status.code, status.reason.as_str()) {
            (404, _) if status.details.is_none() => Failure::NoSuchKind,
            (404, _) => Failure::NotFound,
            (403, _) if in_ending_namespace(status) => Failure::Refused(cut(&status.message)),
            (401 | 403, _) => Failure::Forbidden(cut(&without_user(&status.message))),
            (409, "AlreadyExists") => Failure::AlreadyExists,
            (409, _) => Failure::Conflict,
            (410, _) => Failure::Expired,
            (400 | 413 | 422, _) => Failure::Refused(cut(&status.message)),
            (code, _) => Failure::Other(format!("HTTP {code}: {}", cut(&status.message))),
        }
    }

    /// Whether the same request can never succeed, so that it must not be sent again. Rights can be granted, kinds
    /// installed and servers repaired; what a server refuses for its content stays refused.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Failure::Refused(_) => true,
            Failure::NotFound
            | Failure::NoSuchKind
            | Failure::Forbidden(_)
            | Failure::AlreadyExists
            | Failure::Conflict
            | Failure::Expired
            | Failure::Other(_) => false,
        }
    }

    pub(super) fn timeout(after: std::time::Duration) -> Failure {
        Failure::Other(format!("no answer within {after:?}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotFound => f.write_str("not found"),
            Failure::NoSuchKind => f.write_str("the API server does not know this kind: install the CRDs"),
            Failure::AlreadyExists => f.write_str("already exists"),
            Failure::Conflict => f.write_str("changed meanwhile"),
            Failure::Expired => f.write_str("the version is too old"),
            Failure::Forbidden(message) | Failure::Refused(message) | Failure::Other(message) => f.write_str(message),
        }
    }
}

/// A name that could not be made; the request is not even sent.
impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Failure {
        Failure::Refused(error.to_string())
    }
}

/// Whether the server refuses a new object because its namespace is being deleted, which no right helps against.
fn in_ending_namespace(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
        || status.message.contains("is being terminated")
}

/// The cause behind the wrappers: their own texts only repeat it.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // The library's words for a whole status, message and debug form.
    match deepest.downcast_ref::<kube::Error>().and_then(|error| error.source()) {
        Some(source) => cut(&source.to_string()),
        None => cut(&deepest.to_string()),
    }
}

/// An API server's message without the name of the driver's own user, whose namespace is not the reader's.
pub(super) fn without_user(message: &str) -> String {
    const USER: &str = "User \"";
    let named = message.split_once(USER).and_then(|(before, rest)| Some((before, rest.split_once('"')?.1)));
    named.map_or_else(|| message.to_owned(), |(before, after)| format!("{before}the driver{after}"))
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
