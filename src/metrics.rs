//! Every instrument by name, and the registry they live in.
//!
//! Names, labels and scope labels are upstream's, so that dashboards go on working (spec/driver.md §10.1); `reason` is
//! added. Label values come from closed lists only. `admin` serves the text.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::model::Reason;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The `provider` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Not known: the call ended before the class was read, or there was nothing to do.
    None,
    /// The built-in one.
    Azure,
    /// A name that no provider has. The name itself comes from users and would make the label unbounded.
    Other,
}

impl Provider {
    fn as_str(self) -> &'static str {
        match self {
            Provider::None => "",
            Provider::Azure => "azure",
            Provider::Other => "other",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Publish {
    os_type: &'static str,
    provider: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PublishError {
    os_type: &'static str,
    provider: &'static str,
    error_type: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unpublish {
    os_type: &'static str,
}

/// Upstream's provider has the object's name here, and the whole error; both are without bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    provider: &'static str,
    os_type: &'static str,
    service_name: &'static str,
    object_type: &'static str,
    object_name: &'static str,
    error: &'static str,
}

/// The bounds of `keyvault_request`, in seconds, as upstream's provider has them (spec/azure-provider.md §7.4).
const REQUEST_BUCKETS: [f64; 14] = [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 15.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rotation {
    os_type: &'static str,
    provider: &'static str,
    rotated: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RotationError {
    os_type: &'static str,
    provider: &'static str,
    error_type: &'static str,
    rotated: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Os {
    os_type: &'static str,
}

/// The bounds of `rotation_reconcile_duration_sec` (spec/driver.md §10.1).
const ROTATION_BUCKETS: [f64; 11] = [0.1, 0.1349, 0.1821, 0.2456, 0.3314, 0.4472, 0.6034, 0.8142, 1.0986, 1.4823, 2.0];

#[derive(Debug)]
struct Instruments {
    registry: Registry,
    node_publish: Family<Publish, Counter>,
    node_publish_error: Family<PublishError, Counter>,
    node_unpublish: Family<Unpublish, Counter>,
    node_unpublish_error: Family<Unpublish, Counter>,
    keyvault_request: Family<Request, Histogram, fn() -> Histogram>,
    rotation: Family<Rotation, Counter>,
    rotation_error: Family<RotationError, Counter>,
    rotation_duration: Family<Os, Histogram, fn() -> Histogram>,
    rotation_volumes: Family<Os, Gauge>,
    rotation_failing: Family<Os, Gauge>,
    rotation_age: Family<Os, Gauge<f64, AtomicU64>>,
}

/// The instruments. Cheap to clone; all clones count into the same registry.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Instruments>);

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Instruments that have counted nothing yet. Series appear with their first event, as upstream's do.
    pub fn new() -> Metrics {
        // The scope labels that upstream's OpenTelemetry exporter puts on every sample.
        let scope = [("name", "sigs.k8s.io/secrets-store-csi-driver"), ("version", ""), ("schema_url", "")];
        let scope = scope.map(|(key, value)| (format!("otel_scope_{key}").into(), value.to_owned().into()));
        let mut root = Registry::default();
        let target = Info::new(vec![("service_name", "keyvault-csi"), ("service_version", env!("CARGO_PKG_VERSION"))]);
        root.register("target", "Target metadata", target);
        let registry = root.sub_registry_with_labels(scope.into_iter());
        let (node_publish, node_publish_error) = (Family::default(), Family::default());
        let (node_unpublish, node_unpublish_error) = (Family::default(), Family::default());
        registry.register("node_publish", "Total number of node publish calls", node_publish.clone());
        registry.register(
            "node_publish_error",
            "Total number of node publish calls with error",
            node_publish_error.clone(),
        );
        registry.register("node_unpublish", "Total number of node unpublish calls", node_unpublish.clone());
        registry.register(
            "node_unpublish_error",
            "Total number of node unpublish calls with error",
            node_unpublish_error.clone(),
        );
        let keyvault_request =
            Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS));
        registry.register(
            "keyvault_request",
            "Distribution of how long it took to get from keyvault",
            keyvault_request.clone(),
        );
        let (rotation, rotation_error) = (Family::default(), Family::default());
        let rotation_duration =
            Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(ROTATION_BUCKETS));
        let (rotation_volumes, rotation_failing, rotation_age) =
            (Family::default(), Family::default(), Family::default());
        registry.register("rotation_reconcile", "Total number of volumes refreshed", rotation.clone());
        registry.register(
            "rotation_reconcile_error",
            "Total number of volumes that could not be refreshed",
            rotation_error.clone(),
        );
        registry.register(
            "rotation_reconcile_duration_sec",
            "Distribution of how long a cycle took, from the class to the last file",
            rotation_duration.clone(),
        );
        registry.register("rotation_volumes", "Volumes that are refreshed", rotation_volumes.clone());
        registry.register(
            "rotation_volumes_failing",
            "Volumes that could not be refreshed the last time",
            rotation_failing.clone(),
        );
        registry.register(
            "rotation_oldest_fetch_seconds",
            "How long ago the last good fetch was of what waits longest for one",
            rotation_age.clone(),
        );
        Metrics(Arc::new(Instruments {
            registry: root,
            node_publish,
            node_publish_error,
            node_unpublish,
            node_unpublish_error,
            keyvault_request,
            rotation,
            rotation_error,
            rotation_duration,
            rotation_volumes,
            rotation_failing,
            rotation_age,
        }))
    }

    /// Counts a NodePublishVolume.
    pub fn published(&self, provider: Provider, outcome: Result<(), Reason>) {
        let (os_type, provider) = (std::env::consts::OS, provider.as_str());
        match outcome {
            Ok(()) => self.0.node_publish.get_or_create(&Publish { os_type, provider }).inc(),
            Err(reason) => {
                let labels =
                    PublishError { os_type, provider, error_type: error_type(reason), reason: reason.as_str() };
                self.0.node_publish_error.get_or_create(&labels).inc()
            }
        };
    }

    /// Counts a NodeUnpublishVolume.
    pub fn unpublished(&self, outcome: Result<(), Reason>) {
        let family = match outcome {
            Ok(()) => &self.0.node_unpublish,
            Err(_) => &self.0.node_unpublish_error,
        };
        family.get_or_create(&Unpublish { os_type: std::env::consts::OS }).inc();
    }

    /// Counts one object, or one list of versions, that was fetched from a vault: with its token, its tries and its waits.
    pub fn fetched(&self, object_type: &'static str, outcome: Result<(), Reason>, took: Duration) {
        let labels = Request {
            provider: Provider::Azure.as_str(),
            os_type: std::env::consts::OS,
            service_name: "csi-secrets-store-provider-azure",
            object_type,
            object_name: "",
            error: outcome.err().map_or("", Reason::as_str),
        };
        self.0.keyvault_request.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a volume that was refreshed; `rotated` says whether its content changed.
    pub fn refreshed(&self, rotated: bool) {
        let (os_type, provider) = (std::env::consts::OS, Provider::Azure.as_str());
        let rotated = if rotated { "true" } else { "false" };
        self.0.rotation.get_or_create(&Rotation { os_type, provider, rotated }).inc();
    }

    /// Counts a volume that could not be refreshed.
    pub fn refresh_failed(&self, reason: Reason) {
        let (os_type, provider) = (std::env::consts::OS, Provider::Azure.as_str());
        let (error_type, reason) = (error_type(reason), reason.as_str());
        let labels = RotationError { os_type, provider, error_type, rotated: "false", reason };
        self.0.rotation_error.get_or_create(&labels).inc();
    }

    /// Notes how long a cycle took that succeeded.
    pub fn refresh_took(&self, took: Duration) {
        let labels = Os { os_type: std::env::consts::OS };
        self.0.rotation_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Notes how many volumes are refreshed, how many of them cannot be, and the age of the oldest good fetch.
    pub fn refreshed_volumes(&self, volumes: usize, failing: usize, oldest: Option<Duration>) {
        let labels = Os { os_type: std::env::consts::OS };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.rotation_volumes.get_or_create(&labels).set(count(volumes));
        self.0.rotation_failing.get_or_create(&labels).set(count(failing));
        self.0.rotation_age.get_or_create(&labels).set(oldest.unwrap_or_default().as_secs_f64());
    }

    /// The registry in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only when memory runs out.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// What upstream calls this reason in its `error_type` label (spec/driver.md §2.6).
fn error_type(reason: Reason) -> &'static str {
    match reason {
        Reason::ClassNotFound | Reason::ApiServerForbidden | Reason::ApiServerUnavailable => {
            "SecretProviderClassNotFound"
        }
        Reason::ProviderNotFound => "",
        Reason::InvalidRequest | Reason::Busy | Reason::MountFailed | Reason::Internal => "FailedToMount",
        Reason::WriteFailed | Reason::TooLarge => "FileWriteError",
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
        | Reason::VaultUnavailable
        | Reason::IdentityUnavailable
        | Reason::NetworkUnreachable
        | Reason::TlsUntrusted
        | Reason::Timeout => "GRPCProviderError",
    }
}
