//! The metrics of every role that fetches from vaults: requests, back-off, key derivation.
//!
//! `keyvault_request` has upstream's name and labels, but the object's name is empty and `error` is
//! the reason: upstream's provider has the name and the whole error there, both without bound.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::exposition::Exposition;
use super::labels::{Backoff, OS, Os, PROVIDER_SERVICE, REQUEST_BUCKETS};
use super::providers::Provider;
use crate::model::Reason;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    provider: &'static str,
    os_type: &'static str,
    service_name: &'static str,
    object_type: &'static str,
    object_name: &'static str,
    error: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    os_type: &'static str,
    cause: &'static str,
}

#[derive(Debug)]
struct Families {
    request: Family<Request, Histogram, fn() -> Histogram>,
    throttled: Family<Os, Counter>,
    backoff: Family<Backoff, Counter>,
    derivations: Family<Os, Counter>,
    iterations: Family<Os, Counter>,
    refused: Family<Refused, Counter>,
}

/// The set of a role that fetches. Cheap to clone; all clones count into the same families.
#[derive(Debug, Clone)]
pub struct FetchMetrics(Arc<Families>);

impl FetchMetrics {
    /// Adds the set to an exposition.
    pub fn register(exposition: &mut Exposition) -> FetchMetrics {
        let families = Families {
            request: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            throttled: Family::default(),
            backoff: Family::default(),
            derivations: Family::default(),
            iterations: Family::default(),
            refused: Family::default(),
        };
        let Families { request, throttled, backoff, derivations, iterations, refused } = &families;
        let registry = exposition.registry();
        registry.register("keyvault_request", "Distribution of how long it took to get from keyvault", request.clone());
        registry.register("keyvault_throttled", "Total number of responses 429 of vaults", throttled.clone());
        registry.register(
            "keyvault_backoff",
            "Total number of times that requests to a vault were paused, by its Retry-After or by an open circuit",
            backoff.clone(),
        );
        registry.register(
            "key_derivations",
            "Total number of PKCS#12 archives for which keys were derived",
            derivations.clone(),
        );
        registry.register(
            "key_derivation_iterations",
            "Total number of hash iterations of these derivations",
            iterations.clone(),
        );
        registry.register(
            "key_derivations_refused",
            "Total number of archives and certificates that were not read: too expensive, too many waiting, or too late",
            refused.clone(),
        );
        FetchMetrics(Arc::new(families))
    }

    /// Counts one object, or one list of versions, that was fetched from a vault; `took` includes
    /// its token, its retries and its waits.
    pub fn fetched(&self, object_type: &'static str, outcome: Result<(), Reason>, took: Duration) {
        let labels = Request {
            provider: Provider::Azure.as_str(),
            os_type: OS.os_type,
            service_name: PROVIDER_SERVICE,
            object_type,
            object_name: "",
            error: outcome.err().map_or("", Reason::as_str),
        };
        self.0.request.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a response 429 of a vault.
    pub fn throttled(&self) {
        self.0.throttled.get_or_create(&OS).inc();
    }

    /// Counts that requests to a vault are paused from now on, for one of the `BACKOFF_REASONS`.
    pub fn backoff_started(&self, reason: &'static str) {
        self.0.backoff.get_or_create(&Backoff { os_type: OS.os_type, reason }).inc();
    }

    /// Counts an archive that was read with this many iterations; one without any is not counted.
    pub fn computed(&self, iterations: u32) {
        if iterations > 0 {
            self.0.derivations.get_or_create(&OS).inc();
            self.0.iterations.get_or_create(&OS).inc_by(iterations.into());
        }
    }

    /// Counts an archive or a certificate that was not read, by cause: `ceiling`, `queue` or
    /// `deadline`.
    pub fn computing_refused(&self, cause: &'static str) {
        self.0.refused.get_or_create(&Refused { os_type: OS.os_type, cause }).inc();
    }
}
