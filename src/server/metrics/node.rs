//! The metrics of the node role: upstream's names and labels for its calls and for Secrets
//! (docs/reference/csi-driver.md#metrics); `reason` is added.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::exposition::Exposition;
use super::labels::{DURATION_BUCKETS, OS, Os};
use super::providers::{Cause, Provider, Providers};
use super::rotation::Rotation;
use crate::model::Reason;

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
struct SyncError {
    os_type: &'static str,
    provider: &'static str,
    reason: &'static str,
}

#[derive(Debug)]
struct Calls {
    publish: Family<Publish, Counter>,
    publish_error: Family<PublishError, Counter>,
    unpublish: Family<Os, Counter>,
    unpublish_error: Family<Os, Counter>,
}

#[derive(Debug)]
struct Secrets {
    synced: Family<Publish, Counter>,
    error: Family<SyncError, Counter>,
    duration: Family<Os, Histogram, fn() -> Histogram>,
}

#[derive(Debug)]
struct Families {
    calls: Calls,
    rotation: Rotation,
    providers: Providers,
    secrets: Secrets,
}

/// The set of the node role. Cheap to clone; all clones count into the same families.
#[derive(Debug, Clone)]
pub struct NodeMetrics(Arc<Families>);

impl Calls {
    fn register(registry: &mut Registry) -> Calls {
        let calls = Calls {
            publish: Family::default(),
            publish_error: Family::default(),
            unpublish: Family::default(),
            unpublish_error: Family::default(),
        };
        let Calls { publish, publish_error, unpublish, unpublish_error } = &calls;
        registry.register("node_publish", "Total number of node publish calls", publish.clone());
        registry.register("node_publish_error", "Total number of node publish calls with error", publish_error.clone());
        registry.register("node_unpublish", "Total number of node unpublish calls", unpublish.clone());
        registry.register(
            "node_unpublish_error",
            "Total number of node unpublish calls with error",
            unpublish_error.clone(),
        );
        calls
    }
}

impl Secrets {
    fn register(registry: &mut Registry) -> Secrets {
        let secrets = Secrets {
            synced: Family::default(),
            error: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
        };
        let Secrets { synced, error, duration } = &secrets;
        registry.register("sync_k8s_secret", "Total number of k8s secrets synced", synced.clone());
        registry.register(
            "sync_k8s_secret_error",
            "Total number of k8s secrets that could not be synced",
            error.clone(),
        );
        registry.register(
            "sync_k8s_secret_duration_sec",
            "Distribution of how long it took to sync k8s secret",
            duration.clone(),
        );
        secrets
    }
}

impl NodeMetrics {
    /// Adds the set to an exposition.
    pub fn register(exposition: &mut Exposition) -> NodeMetrics {
        let registry = exposition.registry();
        let (calls, rotation) = (Calls::register(registry), Rotation::register(registry));
        let (providers, secrets) = (Providers::register(registry), Secrets::register(registry));
        NodeMetrics(Arc::new(Families { calls, rotation, providers, secrets }))
    }

    /// The families of rotation.
    pub fn rotation(&self) -> &Rotation {
        &self.0.rotation
    }

    /// The providers as label values.
    pub fn providers(&self) -> &Providers {
        &self.0.providers
    }

    /// Counts a NodePublishVolume.
    pub fn published(&self, provider: Provider, outcome: Result<(), Cause<'_>>) {
        let (os_type, provider) = (OS.os_type, provider.as_str());
        match outcome {
            Ok(()) => self.0.calls.publish.get_or_create(&Publish { os_type, provider }).inc(),
            Err(cause) => {
                let error_type = self.0.providers.error_type(cause);
                let labels = PublishError { os_type, provider, error_type, reason: cause.reason.as_str() };
                self.0.calls.publish_error.get_or_create(&labels).inc()
            }
        };
    }

    /// Counts a NodeUnpublishVolume.
    pub fn unpublished(&self, outcome: Result<(), Reason>) {
        let family = match outcome {
            Ok(()) => &self.0.calls.unpublish,
            Err(_) => &self.0.calls.unpublish_error,
        };
        family.get_or_create(&OS).inc();
    }

    /// Counts one Kubernetes Secret of a class of this provider: written within this time, or
    /// failed.
    pub fn mirrored(&self, provider: Provider, outcome: Result<Duration, Reason>) {
        let (os_type, provider) = (OS.os_type, provider.as_str());
        let secrets = &self.0.secrets;
        match outcome {
            Ok(took) => {
                secrets.synced.get_or_create(&Publish { os_type, provider }).inc();
                secrets.duration.get_or_create(&OS).observe(took.as_secs_f64());
            }
            Err(reason) => {
                let labels = SyncError { os_type, provider, reason: reason.as_str() };
                secrets.error.get_or_create(&labels).inc();
            }
        }
    }

    /// Counts a volume that could not be refreshed.
    pub fn refresh_failed(&self, provider: Provider, cause: Cause<'_>) {
        let error_type = self.0.providers.error_type(cause);
        self.0.rotation.refresh_failed(provider, error_type, cause.reason);
    }
}
