//! The metrics of the provider role: its calls, with upstream's name and labels
//! (docs/reference/azure-provider.md#metrics).
//!
//! `grpc_message` is the reason: upstream's provider has the whole error, which is unbounded.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::exposition::Exposition;
use super::labels::{OS, PROVIDER_SERVICE, REQUEST_BUCKETS};
use super::providers::Provider;
use crate::model::Reason;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    provider: &'static str,
    os_type: &'static str,
    service_name: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
    grpc_message: &'static str,
}

/// The set of the provider role. Cheap to clone; all clones count into the same family.
#[derive(Debug, Clone)]
pub struct ProviderMetrics(Family<Call, Histogram, fn() -> Histogram>);

impl ProviderMetrics {
    /// Adds the set to an exposition.
    pub fn register(exposition: &mut Exposition) -> ProviderMetrics {
        let calls = Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS));
        let help = "Distribution of how long it took for the gRPC requests";
        exposition.registry().register("grpc_request", help, calls.clone());
        ProviderMetrics(calls)
    }

    /// Counts a call that the provider answered: with OK, or with Unknown for every failure.
    pub fn called(&self, method: &'static str, outcome: Result<(), Reason>, took: Duration) {
        let labels = Call {
            provider: Provider::Azure.as_str(),
            os_type: OS.os_type,
            service_name: PROVIDER_SERVICE,
            grpc_method: method,
            grpc_code: if outcome.is_ok() { "OK" } else { "Unknown" },
            grpc_message: outcome.err().map_or("", Reason::as_str),
        };
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
