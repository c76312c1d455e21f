//! The metrics of rotation: upstream's (docs/reference/csi-driver.md#metrics), and those for the
//! age and the expiry of mounted objects. No label names an object or a class.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::{BACKOFF_REASONS, Backoff, DURATION_BUCKETS, OS, Os};
use super::providers::Provider;
use crate::model::Reason;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refreshed {
    os_type: &'static str,
    provider: &'static str,
    rotated: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    os_type: &'static str,
    provider: &'static str,
    error_type: &'static str,
    rotated: &'static str,
    reason: &'static str,
}

/// The families of rotation.
#[derive(Debug)]
pub struct Rotation {
    refreshed: Family<Refreshed, Counter>,
    failed: Family<Failed, Counter>,
    took: Family<Os, Histogram, fn() -> Histogram>,
    volumes: Family<Os, Gauge>,
    failing: Family<Os, Gauge>,
    oldest_success: Family<Os, Gauge<f64, AtomicU64>>,
    next_expiration: Family<Os, Gauge>,
    backoff: Family<Backoff, Gauge>,
}

impl Rotation {
    pub(super) fn register(registry: &mut Registry) -> Rotation {
        let rotation = Rotation {
            refreshed: Family::default(),
            failed: Family::default(),
            took: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            volumes: Family::default(),
            failing: Family::default(),
            oldest_success: Family::default(),
            next_expiration: Family::default(),
            backoff: Family::default(),
        };
        let Rotation { refreshed, failed, took, volumes, failing, oldest_success, next_expiration, backoff } =
            &rotation;
        registry.register("rotation_reconcile", "Total number of refreshes of volumes", refreshed.clone());
        registry.register(
            "rotation_reconcile_error",
            "Total number of refreshes of volumes that failed",
            failed.clone(),
        );
        registry.register(
            "rotation_reconcile_duration_sec",
            "Distribution of how long one fetch took, with the writes of all its volumes",
            took.clone(),
        );
        registry.register("rotation_volumes", "Number of volumes that are refreshed", volumes.clone());
        registry.register("rotation_volumes_failing", "Number of those whose last refresh failed", failing.clone());
        registry.register(
            "rotation_oldest_success_timestamp_seconds",
            "The oldest of the last successful fetches of all mounted volumes, in Unix seconds",
            oldest_success.clone(),
        );
        registry.register(
            "rotation_next_expiration_timestamp_seconds",
            "The earliest expiration date of all mounted secrets, keys and certificates, in Unix seconds",
            next_expiration.clone(),
        );
        registry.register(
            "keyvault_backoff_vaults",
            "Number of vaults to which requests are paused, by their Retry-After or by an open circuit",
            backoff.clone(),
        );
        rotation
    }

    /// Counts a volume that was refreshed; `rotated` says whether its content changed.
    pub fn refreshed(&self, provider: Provider, rotated: bool) {
        let (os_type, provider) = (OS.os_type, provider.as_str());
        let rotated = if rotated { "true" } else { "false" };
        self.refreshed.get_or_create(&Refreshed { os_type, provider, rotated }).inc();
    }

    pub(super) fn refresh_failed(&self, provider: Provider, error_type: &'static str, reason: Reason) {
        let (os_type, provider) = (OS.os_type, provider.as_str());
        let labels = Failed { os_type, provider, error_type, rotated: "false", reason: reason.as_str() };
        self.failed.get_or_create(&labels).inc();
    }

    /// Records the duration of a successful cycle.
    pub fn refresh_took(&self, took: Duration) {
        self.took.get_or_create(&OS).observe(took.as_secs_f64());
    }

    /// Sets the number of volumes that are refreshed, and of those whose last refresh failed.
    pub fn rotated_volumes(&self, volumes: usize, failing: usize) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.volumes.get_or_create(&OS).set(count(volumes));
        self.failing.get_or_create(&OS).set(count(failing));
    }

    /// Sets the number of vaults to which requests are paused, for each of [`BACKOFF_REASONS`].
    pub fn backoff_vaults(&self, counts: [usize; 2]) {
        for (reason, count) in BACKOFF_REASONS.into_iter().zip(counts) {
            let gauge = self.backoff.get_or_create(&Backoff { os_type: OS.os_type, reason });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the oldest successful fetch, in Unix seconds; `None` removes the sample.
    pub fn oldest_success(&self, time: Option<f64>) {
        match time {
            Some(time) => drop(self.oldest_success.get_or_create(&OS).set(time)),
            None => drop(self.oldest_success.remove(&OS)),
        }
    }

    /// Sets the earliest expiration date, in Unix seconds; `None` removes the sample.
    pub fn next_expiration(&self, time: Option<i64>) {
        match time {
            Some(time) => drop(self.next_expiration.get_or_create(&OS).set(time)),
            None => drop(self.next_expiration.remove(&OS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Exposition, Format};
    use super::*;

    #[test]
    fn a_time_that_is_unknown_has_no_sample() {
        let mut exposition = Exposition::new();
        let rotation = Rotation::register(exposition.registry());
        let samples = || {
            let text = exposition.encode(Format::Classic).unwrap();
            let samples = text.lines().filter(|line| line.contains("_timestamp_seconds{")).map(str::to_owned);
            samples.collect::<Vec<_>>()
        };
        assert_eq!(samples(), [""; 0]);
        rotation.oldest_success(Some(1_800_000_000.5));
        rotation.next_expiration(Some(1_900_000_000));
        let shown = samples();
        assert_eq!(shown.len(), 2);
        assert!(shown[0].ends_with(" 1800000000.5") && shown[1].ends_with(" 1900000000"), "{shown:?}");
        rotation.oldest_success(None);
        rotation.next_expiration(None);
        assert_eq!(samples(), [""; 0]);
    }
}
