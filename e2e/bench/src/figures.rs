//! The figures of all runs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

/// The values of each figure, one for each run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) each: BTreeMap<String, Vec<f64>>,
    /// Calls to the API server in the latency scenario, by verb and kind.
    pub(crate) apis: BTreeMap<String, usize>,
}

impl Figures {
    pub(crate) fn record(&mut self, name: &str, value: f64) {
        self.each.entry(name.to_owned()).or_default().push(value);
    }

    /// Records the report of the load client.
    pub(crate) fn calls(&mut self, about: &str, report: &Value) -> Result<()> {
        for part in ["p50_ms", "p90_ms", "p99_ms", "max_ms"] {
            let value = report[part].as_f64().with_context(|| format!("the load client does not report {part}"))?;
            self.record(&format!("{about}_{part}"), value);
        }
        Ok(())
    }

    /// Sets the driver's calls to the API server; those of the last run are reported.
    pub(crate) fn apis(&mut self, calls: BTreeMap<String, usize>) {
        self.apis = calls;
    }

    pub(crate) fn sorted(&self, name: &str) -> Option<Vec<f64>> {
        let mut values = self.each.get(name)?.clone();
        values.sort_by(f64::total_cmp);
        Some(values)
    }
}

/// The cost of a number of volumes with a number of objects.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Point {
    pub(crate) volumes: usize,
    pub(crate) objects: usize,
    pub(crate) pss_mib: f64,
    pub(crate) cycle_cpu_ms: f64,
    pub(crate) cycle_requests: f64,
}
