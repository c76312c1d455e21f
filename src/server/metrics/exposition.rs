//! The metrics of one role as text.
//!
//! A role registers the sets that it uses; series appear with their first event, as upstream's do.

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::classic::classic;

/// A format of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, which upstream serves.
    Classic,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// The media type without parameters: type and subtype.
    pub fn media_type(self) -> [&'static str; 2] {
        match self {
            Format::Classic => ["text", "plain"],
            Format::OpenMetrics => ["application", "openmetrics-text"],
        }
    }

    /// The `version` parameter of the media type.
    pub fn version(self) -> &'static str {
        match self {
            Format::Classic => "0.0.4",
            Format::OpenMetrics => "1.0.0",
        }
    }
}

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
    pub fn encode(&self, format: Format) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        match format {
            Format::Classic => classic(&text),
            Format::OpenMetrics => Ok(text),
        }
    }
}
