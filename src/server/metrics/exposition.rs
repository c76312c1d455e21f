//! The metrics of one role in the OpenMetrics text format.
//!
//! A role registers the sets that it uses; series appear with their first event, as upstream's do.

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`Exposition::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registered sets of metrics.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Default for Exposition {
    fn default() -> Exposition {
        Exposition::new()
    }
}

impl Exposition {
    /// An exposition with the target's metadata only.
    pub fn new() -> Exposition {
        let mut root = Registry::default();
        let target = Info::new(vec![("service_name", "keyvault-csi"), ("service_version", env!("CARGO_PKG_VERSION"))]);
        root.register("target", "Target metadata", target);
        Exposition(root)
    }

    /// The registry of a set.
    pub(super) fn registry(&mut self) -> &mut Registry {
        // The scope labels that upstream's OpenTelemetry exporter puts on every sample.
        let scope = [("name", "sigs.k8s.io/secrets-store-csi-driver"), ("version", ""), ("schema_url", "")];
        let scope = scope.map(|(key, value)| (format!("otel_scope_{key}").into(), value.to_owned().into()));
        self.0.sub_registry_with_labels(scope.into_iter())
    }

    /// All samples as text.
    ///
    /// # Errors
    /// Only when memory runs out.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}
