//! Errors of requests to the API server.
//!
//! Texts name the object and the fix; they never contain a token, and the server's message is cut.
//! Each error has one `Reason`.

use std::error::Error as _;
use std::fmt;

use crate::model::{ClassRef, InvalidName, Reason};

/// The longest excerpt of a server's message, in characters.
const EXCERPT: usize = 400;
/// How many namespaces a message names.
const LISTED_NAMESPACES: usize = 5;

/// Why no client can be created.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not in a pod, or in one without a service account.
    #[error(
        "no source of SecretProviderClasses: no --manifests, no --kubeconfig, no KUBECONFIG, and the pod's service account cannot be used: {}",
        innermost(&**.0)
    )]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// The kubeconfig is missing or malformed.
    #[error("the kubeconfig {from} cannot be used: {}", innermost(&**.source))]
    Kubeconfig {
        /// The file, or "the files of KUBECONFIG".
        from: String,
        /// The library's error.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Certificates, keys or proxies are unusable.
    #[error("the credentials for the API server cannot be used: {}", innermost(.0))]
    Client(#[source] kube::Error),
}

/// Why a class cannot be read from the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// The class does not exist.
    #[error("failed to get secretproviderclass {class}: not found; the class must be in the pod's namespace")]
    NotFound {
        /// The requested class.
        class: ClassRef,
        /// Namespaces that have a class with this name. Not in the text: the pod's owner may not
        /// list them.
        elsewhere: Vec<String>,
    },
    /// The object violates the schema.
    #[error("failed to get secretproviderclass {class}: the object is invalid: {why}")]
    Invalid {
        /// The requested class.
        class: ClassRef,
        /// Field and fix.
        why: String,
    },
    /// The kind is not served.
    #[error(
        "failed to get secretproviderclass {0}: the API server does not know secretproviderclasses.secrets-store.csi.x-k8s.io/v1; install the CRDs (manifests/crds)"
    )]
    NoSuchKind(ClassRef),
    /// The driver lacks the right to read classes.
    #[error(
        "failed to get secretproviderclass {class}: {message}; grant the driver's service account get, list and watch on secretproviderclasses of secrets-store.csi.x-k8s.io (ClusterRole secretproviderclasses-role)"
    )]
    Forbidden {
        /// The requested class.
        class: ClassRef,
        /// The API server's message.
        message: String,
    },
    /// The API server gives no usable response.
    #[error("failed to get secretproviderclass {class}: the Kubernetes API server does not answer as it should: {why}")]
    Unavailable {
        /// The requested class.
        class: ClassRef,
        /// What went wrong.
        why: String,
    },
}

impl ClassError {
    /// Details for the driver's log; `None` if the text is complete.
    pub fn detail(&self) -> Option<String> {
        match self {
            ClassError::NotFound { elsewhere, .. } if !elsewhere.is_empty() => {
                let (shown, more) = elsewhere.split_at(elsewhere.len().min(LISTED_NAMESPACES));
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

/// Why an object that is not a class cannot be read from the API server.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The driver lacks the right to read it.
    #[error(
        "failed to get {what}: {message}; grant it to the driver's service account (docs/install.md has the roles)"
    )]
    Forbidden {
        /// Kind and name of the object.
        what: String,
        /// The API server's message.
        message: String,
    },
    /// The API server gives no usable response.
    #[error("failed to get {what}: the Kubernetes API server does not answer as it should: {why}")]
    Unavailable {
        /// Kind and name of the object.
        what: String,
        /// What went wrong.
        why: String,
    },
}

impl GetError {
    pub(super) fn of(what: String, failure: RequestError) -> GetError {
        match failure {
            RequestError::Forbidden(message) => GetError::Forbidden { what, message },
            other @ (RequestError::NotFound
            | RequestError::NoSuchKind
            | RequestError::AlreadyExists
            | RequestError::Conflict
            | RequestError::Expired
            | RequestError::Refused(_)
            | RequestError::Other(_)) => GetError::Unavailable { what, why: other.to_string() },
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
    /// A create of an existing object.
    #[error("it exists already")]
    Exists,
    /// The resourceVersion or the UID no longer matches.
    #[error("it was changed at the same time")]
    Changed,
    /// It, or its namespace, does not exist.
    #[error("it does not exist")]
    Gone,
    /// The driver lacks a right.
    #[error(
        "{0}; grant the driver get, create and patch on secrets: chart value syncSecret.enabled=true (ClusterRole secretprovidersyncing-role)"
    )]
    Forbidden(String),
    /// The driver lacks the right to delete it, which an admission plug-in requires for a change of
    /// owners.
    #[error("the API server refuses to change its owners: {OWNERS_GRANT} (ClusterRole secretprovidersyncing-role)")]
    OwnersForbidden,
    /// The API server rejects the content.
    #[error("the API server refuses it: {0}")]
    Refused(String),
    /// The API server gives no usable response.
    #[error("the Kubernetes API server does not answer as it should: {0}")]
    Unavailable(String),
}

impl SecretError {
    /// With the server's whole message, so that it can be searched for values before it is cut.
    pub(super) fn of(error: kube::Error) -> SecretError {
        match (RequestError::of(&error), error) {
            (RequestError::AlreadyExists, _) => SecretError::Exists,
            (RequestError::Conflict, _) => SecretError::Changed,
            (RequestError::NotFound | RequestError::NoSuchKind, _) => SecretError::Gone,
            (RequestError::Refused(_), kube::Error::Api(status)) => SecretError::Refused(status.message),
            // No right would help: the namespace is terminating.
            (RequestError::Forbidden(_), kube::Error::Api(status))
                if status.message.contains("is being terminated") =>
            {
                SecretError::Refused(status.message)
            }
            (RequestError::Forbidden(_), kube::Error::Api(status)) if forbids_owners(&status.message) => {
                SecretError::OwnersForbidden
            }
            (RequestError::Forbidden(_), kube::Error::Api(status)) => {
                SecretError::Forbidden(without_user(&status.message))
            }
            (RequestError::Other(_), kube::Error::Api(status)) => {
                SecretError::Unavailable(format!("HTTP {}: {}", status.code, status.message))
            }
            (
                failure @ (RequestError::Forbidden(_)
                | RequestError::Expired
                | RequestError::Refused(_)
                | RequestError::Other(_)),
                _,
            ) => SecretError::Unavailable(failure.to_string()),
        }
    }

    /// Whether the same write can never succeed; see [`RequestError::is_final`].
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

    /// The same with a message of readable length.
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

/// The advice if the API server requires the right to delete an object for a change of its owners.
pub(super) const OWNERS_GRANT: &str = "its admission plug-in OwnerReferencesPermissionEnforcement requires the right to delete \
     the object; grant it by the chart value rbac.ownerReferencesPermissionEnforcement=true";

/// Whether a refusal is that plug-in's (kubernetes/kubernetes,
/// plugin/pkg/admission/gc/gc_admission.go).
pub(super) fn forbids_owners(message: &str) -> bool {
    message.contains("cannot set an ownerRef on a resource you can't delete")
}

/// The meaning of a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestError {
    NotFound,
    /// The API server does not serve the kind.
    NoSuchKind,
    /// 401 or 403.
    Forbidden(String),
    AlreadyExists,
    /// The resourceVersion no longer matches.
    Conflict,
    /// The requested resourceVersion is too old (410).
    Expired,
    /// The server will never accept this request: it is malformed or too large (400, 413, 422), or
    /// creates an object in a terminating namespace (403).
    Refused(String),
    /// No connection, a fault of the server, too many requests, a timeout.
    Other(String),
}

impl RequestError {
    /// What an administrator can do about it; `grant` is the fix for a missing right.
    pub(super) fn advice(&self, grant: &'static str) -> &'static str {
        match self {
            RequestError::Forbidden(_) => grant,
            RequestError::NoSuchKind => "install the CRDs (manifests/crds)",
            RequestError::NotFound
            | RequestError::AlreadyExists
            | RequestError::Conflict
            | RequestError::Expired
            | RequestError::Refused(_)
            | RequestError::Other(_) => "is the API server reachable from this node?",
        }
    }

    pub(super) fn of(error: &kube::Error) -> RequestError {
        let kube::Error::Api(status) = error else {
            return RequestError::Other(innermost(error));
        };
        match (status.code, status.reason.as_str()) {
            (404, _) if status.details.is_none() => RequestError::NoSuchKind,
            (404, _) => RequestError::NotFound,
            (403, _) if in_terminating_namespace(status) => RequestError::Refused(cut(&status.message)),
            (401 | 403, _) => RequestError::Forbidden(cut(&without_user(&status.message))),
            (409, "AlreadyExists") => RequestError::AlreadyExists,
            (409, _) => RequestError::Conflict,
            (410, _) => RequestError::Expired,
            (400 | 413 | 422, _) => RequestError::Refused(cut(&status.message)),
            (code, _) => RequestError::Other(format!("HTTP {code}: {}", cut(&status.message))),
        }
    }

    /// Whether the same request can never succeed, so that it must not be repeated. Rights can be
    /// granted, kinds installed and servers repaired; a rejected content stays rejected.
    pub(super) fn is_final(&self) -> bool {
        match self {
            RequestError::Refused(_) => true,
            RequestError::NotFound
            | RequestError::NoSuchKind
            | RequestError::Forbidden(_)
            | RequestError::AlreadyExists
            | RequestError::Conflict
            | RequestError::Expired
            | RequestError::Other(_) => false,
        }
    }

    pub(super) fn timeout(after: std::time::Duration) -> RequestError {
        RequestError::Other(format!("no answer within {after:?}"))
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::NotFound => f.write_str("not found"),
            RequestError::NoSuchKind => f.write_str("the API server does not know this kind: install the CRDs"),
            RequestError::AlreadyExists => f.write_str("already exists"),
            RequestError::Conflict => f.write_str("changed at the same time"),
            RequestError::Expired => f.write_str("the version is too old"),
            RequestError::Forbidden(message) | RequestError::Refused(message) | RequestError::Other(message) => {
                f.write_str(message)
            }
        }
    }
}

/// No valid name results; the request is not sent.
impl From<InvalidName> for RequestError {
    fn from(error: InvalidName) -> RequestError {
        RequestError::Refused(error.to_string())
    }
}

/// Whether the server refuses a new object because its namespace is terminating: no right would
/// help.
fn in_terminating_namespace(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
        || status.message.contains("is being terminated")
}

/// The deepest cause: the texts of the wrappers only repeat it.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // The text of `kube::Error::Api` is the whole status with its debug form.
    match deepest.downcast_ref::<kube::Error>().and_then(|error| error.source()) {
        Some(source) => cut(&source.to_string()),
        None => cut(&deepest.to_string()),
    }
}

/// An API server's message without the driver's user, which names the driver's namespace.
pub(super) fn without_user(message: &str) -> String {
    const USER: &str = "User \"";
    let named = message.split_once(USER).and_then(|(before, rest)| Some((before, rest.split_once('"')?.1)));
    named.map_or_else(|| message.to_owned(), |(before, after)| format!("{before}the driver{after}"))
}

fn cut(text: &str) -> String {
    text.chars().take(EXCERPT).collect()
}
