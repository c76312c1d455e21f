//! Every instrument by name, and the registry they live in.
//!
//! Names, labels and scope labels are upstream's, so that dashboards go on working
//! (docs/reference/csi-driver.md#metrics); `reason` is added. Label values come from closed lists
//! only. `admin` serves the text.

mod calls;
mod compute;
mod providers;
mod rotation;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::calls::Calls;
use self::compute::Compute;
use self::providers::Providers;
use self::rotation::Rotation;
use crate::model::Reason;

pub use self::providers::{Cause, Provider};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncError {
    os_type: &'static str,
    provider: &'static str,
    reason: &'static str,
}

/// Why requests to a vault are paused: it asked for that (Retry-After), or it keeps failing.
pub const BACKOFF_REASONS: [&str; 2] = ["retry_after", "circuit_open"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Backoff {
    os_type: &'static str,
    reason: &'static str,
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

/// The `service_name` of upstream's provider.
const PROVIDER_SERVICE: &str = "csi-secrets-store-provider-azure";

/// The bounds of `keyvault_request`, in seconds, as upstream's provider has them
/// (docs/reference/azure-provider.md#metrics).
const REQUEST_BUCKETS: [f64; 14] = [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 15.0, 30.0];

/// The bounds of the driver's durations, in seconds: 11 geometric steps, as upstream has them
/// (docs/reference/csi-driver.md#metrics).
const DURATION_BUCKETS: [f64; 11] = [0.1, 0.1349, 0.1821, 0.2456, 0.3314, 0.4472, 0.6034, 0.8142, 1.0986, 1.4823, 2.0];

#[derive(Debug)]
struct Instruments {
    registry: Registry,
    node_publish: Family<Publish, Counter>,
    node_publish_error: Family<PublishError, Counter>,
    node_unpublish: Family<Unpublish, Counter>,
    node_unpublish_error: Family<Unpublish, Counter>,
    keyvault_request: Family<Request, Histogram, fn() -> Histogram>,
    keyvault_throttled: Family<Unpublish, Counter>,
    keyvault_backoff: Family<Backoff, Counter>,
    calls: Calls,
    compute: Compute,
    providers: Providers,
    rotation: Rotation,
    sync_k8s_secret: Family<Publish, Counter>,
    sync_k8s_secret_error: Family<SyncError, Counter>,
    sync_k8s_secret_duration: Family<Unpublish, Histogram, fn() -> Histogram>,
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
        let (keyvault_throttled, keyvault_backoff) = (Family::default(), Family::default());
        registry.register("keyvault_throttled", "Total number of answers 429 of vaults", keyvault_throttled.clone());
        registry.register(
            "keyvault_backoff",
            "Total number of times that requests to a vault were paused, by its Retry-After or by an open circuit",
            keyvault_backoff.clone(),
        );
        let (calls, rotation) = (Calls::registered(registry), Rotation::registered(registry));
        let compute = Compute::registered(registry);
        let providers = Providers::registered(registry);
        let (sync_k8s_secret, sync_k8s_secret_error) = (Family::default(), Family::default());
        registry.register("sync_k8s_secret", "Total number of k8s secrets synced", sync_k8s_secret.clone());
        registry.register(
            "sync_k8s_secret_error",
            "Total number of k8s secrets that could not be synced",
            sync_k8s_secret_error.clone(),
        );
        let sync_k8s_secret_duration =
            Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        registry.register(
            "sync_k8s_secret_duration_sec",
            "Distribution of how long it took to sync k8s secret",
            sync_k8s_secret_duration.clone(),
        );
        Metrics(Arc::new(Instruments {
            registry: root,
            node_publish,
            node_publish_error,
            node_unpublish,
            node_unpublish_error,
            keyvault_request,
            keyvault_throttled,
            keyvault_backoff,
            calls,
            compute,
            providers,
            rotation,
            sync_k8s_secret,
            sync_k8s_secret_error,
            sync_k8s_secret_duration,
        }))
    }

    /// Counts a NodePublishVolume.
    pub fn published(&self, provider: Provider, outcome: Result<(), Cause<'_>>) {
        let (os_type, provider) = (std::env::consts::OS, provider.as_str());
        match outcome {
            Ok(()) => self.0.node_publish.get_or_create(&Publish { os_type, provider }).inc(),
            Err(cause) => {
                let error_type = self.0.providers.error_type(cause);
                let labels = PublishError { os_type, provider, error_type, reason: cause.reason.as_str() };
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
            service_name: PROVIDER_SERVICE,
            object_type,
            object_name: "",
            error: outcome.err().map_or("", Reason::as_str),
        };
        self.0.keyvault_request.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an answer 429 of a vault.
    pub fn throttled(&self) {
        self.0.keyvault_throttled.get_or_create(&Unpublish { os_type: std::env::consts::OS }).inc();
    }

    /// Counts that requests to a vault are paused from now on, for a reason of [`BACKOFF_REASONS`].
    pub fn backoff_started(&self, reason: &'static str) {
        self.0.keyvault_backoff.get_or_create(&Backoff { os_type: std::env::consts::OS, reason }).inc();
    }

    /// Counts one Kubernetes Secret of a class of this `provider` that was written, with the time that took, or could not be.
    pub fn mirrored(&self, provider: Provider, outcome: Result<Duration, Reason>) {
        let (os_type, provider) = (std::env::consts::OS, provider.as_str());
        match outcome {
            Ok(took) => {
                self.0.sync_k8s_secret.get_or_create(&Publish { os_type, provider }).inc();
                self.0.sync_k8s_secret_duration.get_or_create(&Unpublish { os_type }).observe(took.as_secs_f64());
            }
            Err(reason) => {
                let labels = SyncError { os_type, provider, reason: reason.as_str() };
                self.0.sync_k8s_secret_error.get_or_create(&labels).inc();
            }
        }
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

/// What upstream calls this reason in its `error_type` label
/// (docs/reference/csi-driver.md#error-types).
fn error_type(reason: Reason) -> &'static str {
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
