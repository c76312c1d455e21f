//! The instrument of our provider's calls: upstream's name and labels
//! (docs/reference/azure-provider.md#metrics).
//!
//! `grpc_message` is the reason's name, where upstream's provider has the whole error, which is without bound.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Metrics, PROVIDER_SERVICE, Provider, REQUEST_BUCKETS};
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

/// The calls that our provider has answered.
#[derive(Debug)]
pub(super) struct Calls(Family<Call, Histogram, fn() -> Histogram>);

impl Calls {
    /// An instrument that has counted nothing yet, in this registry.
    pub(super) fn registered(registry: &mut Registry) -> Calls {
        let calls = Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS));
        registry.register("grpc_request", "Distribution of how long it took for the gRPC requests", calls.clone());
        Calls(calls)
    }
}

impl Metrics {
    /// Counts a call that our provider answered: with OK, or with Unknown, as it answers every failure.
    pub fn called(&self, method: &'static str, outcome: Result<(), Reason>, took: Duration) {
        let labels = Call {
            provider: Provider::Azure.as_str(),
            os_type: std::env::consts::OS,
            service_name: PROVIDER_SERVICE,
            grpc_method: method,
            grpc_code: if outcome.is_ok() { "OK" } else { "Unknown" },
            grpc_message: outcome.err().map_or("", Reason::as_str),
        };
        self.0.calls.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
