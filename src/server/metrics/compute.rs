//! The instruments of `compute`: how many archives were read, and what that cost.
//!
//! Registered with the others, so that they carry the same scope labels. Neither namespaces nor objects are named.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Os {
    os_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    os_type: &'static str,
    cause: &'static str,
}

const OS: Os = Os { os_type: std::env::consts::OS };

/// The instruments of key derivation.
#[derive(Debug)]
pub(super) struct Compute {
    derivations: Family<Os, Counter>,
    iterations: Family<Os, Counter>,
    refused: Family<Refused, Counter>,
}

impl Compute {
    /// Instruments that have counted nothing yet, in this registry.
    pub(super) fn registered(registry: &mut Registry) -> Compute {
        let compute =
            Compute { derivations: Family::default(), iterations: Family::default(), refused: Family::default() };
        let Compute { derivations, iterations, refused } = &compute;
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
        compute
    }
}

impl Metrics {
    /// Counts an archive that was read with this many iterations; one without any is not counted.
    pub fn computed(&self, iterations: u32) {
        if iterations > 0 {
            self.0.compute.derivations.get_or_create(&OS).inc();
            self.0.compute.iterations.get_or_create(&OS).inc_by(iterations.into());
        }
    }

    /// Counts an archive or a certificate that was not read, and why: `ceiling`, `queue` or `deadline`.
    pub fn computing_refused(&self, cause: &'static str) {
        self.0.compute.refused.get_or_create(&Refused { os_type: OS.os_type, cause }).inc();
    }
}
