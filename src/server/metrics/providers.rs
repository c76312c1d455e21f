//! Providers as label values, and the gauge of their health.
//!
//! Names come from classes, and error codes from providers: both are unbounded. A name becomes a
//! label value once a provider of that name was found, up to a limit; any other is `other`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{OS, error_type};
use crate::model::Reason;

/// How many provider names become label values; a node has a few.
const PROVIDERS: usize = 16;
/// How many error codes of providers become label values.
const CODES: usize = 64;
/// The longest error code that becomes a label.
const LONGEST_CODE: usize = 64;
/// The label value of all others.
const OTHER: &str = "other";
/// The provider that is built in.
const AZURE: &str = "azure";

/// The `provider` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Unknown: the call failed before the class was read, or nothing had to be done.
    None,
    /// Azure, built in or not.
    Azure,
    /// An external provider that was found on this node.
    Named(&'static str),
    /// A name that no provider has, or beyond the limit. Users write the name, so that it would
    /// make the label unbounded.
    Other,
}

/// Why a publish or a refresh failed.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// The reason.
    pub reason: Reason,
    /// The error code of an external provider, which upstream has as `error_type`.
    pub code: Option<&'a str>,
}

impl From<Reason> for Cause<'_> {
    fn from(reason: Reason) -> Self {
        Cause { reason, code: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Health {
    os_type: &'static str,
    provider: &'static str,
}

/// Texts from outside that became label values. They stay for the life of the process, like their
/// series.
#[derive(Debug)]
struct LabelValues {
    limit: usize,
    known: Mutex<BTreeSet<&'static str>>,
}

impl LabelValues {
    fn new(limit: usize) -> LabelValues {
        LabelValues { limit, known: Mutex::default() }
    }

    fn find(&self, word: &str) -> Option<&'static str> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(word).copied()
    }

    /// The text as a label value; `None` if there are too many already.
    fn keep(&self, word: &str) -> Option<&'static str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.get(word) {
            return Some(kept);
        }
        if known.len() >= self.limit {
            return None;
        }
        let kept: &'static str = Box::leak(word.to_owned().into_boxed_str());
        known.insert(kept);
        Some(kept)
    }
}

/// The providers that were found, their error codes, and their health.
#[derive(Debug)]
pub struct Providers {
    names: LabelValues,
    codes: LabelValues,
    healthy: Family<Health, Gauge>,
}

impl Providers {
    pub(super) fn register(registry: &mut Registry) -> Providers {
        let healthy = Family::default();
        registry.register("provider_healthy", "Whether the provider answers on its socket", healthy.clone());
        Providers { names: LabelValues::new(PROVIDERS), codes: LabelValues::new(CODES), healthy }
    }

    /// The `error_type` label: the provider's own code, if there is one.
    pub(super) fn error_type(&self, cause: Cause<'_>) -> &'static str {
        match cause.code {
            None => error_type(cause.reason),
            Some(code) => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                let good = code.len() <= LONGEST_CODE && code.bytes().all(fits);
                good.then(|| self.codes.keep(code)).flatten().unwrap_or(OTHER)
            }
        }
    }
}

impl Provider {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Provider::None => "",
            Provider::Azure => AZURE,
            Provider::Named(name) => name,
            Provider::Other => OTHER,
        }
    }
}

impl Providers {
    /// Records that a provider of this name was found on the node.
    pub fn discovered(&self, name: &str) {
        self.names.keep(name);
    }

    /// The label value for the provider that a class names.
    pub fn label(&self, name: &str) -> Provider {
        match self.names.find(name) {
            _ if name == AZURE => Provider::Azure,
            // No class was read.
            _ if name.is_empty() => Provider::None,
            Some(name) => Provider::Named(name),
            None => Provider::Other,
        }
    }

    /// The names of the providers that were found.
    pub fn names(&self) -> Vec<&'static str> {
        self.names.known.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Sets whether a provider answers on its socket; returns whether that changed.
    pub fn set_healthy(&self, name: &str, healthy: bool) -> bool {
        let labels = Health { os_type: OS.os_type, provider: self.label(name).as_str() };
        let before = self.healthy.get(&labels).map(|gauge| gauge.get());
        self.healthy.get_or_create(&labels).set(i64::from(healthy));
        before != Some(i64::from(healthy))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Exposition, Format};
    use super::*;

    #[test]
    fn names_and_codes_are_bounded() {
        let providers = Providers::register(Exposition::new().registry());
        assert_eq!(providers.label("vault"), Provider::Other);
        assert_eq!(providers.label("azure"), Provider::Azure);
        (0..100).for_each(|number| providers.discovered(&format!("provider-{number}")));
        assert_eq!(providers.label("provider-3"), Provider::Named("provider-3"));
        assert_eq!(providers.label("provider-99"), Provider::Other);
        assert_eq!(providers.names().len(), PROVIDERS);
        let reason = Reason::ProviderFailed;
        let label = |code: &str| providers.error_type(Cause { reason, code: Some(code) });
        assert_eq!(label("AuthenticationFailed"), "AuthenticationFailed");
        for odd in ["two words", "a\"b", &"x".repeat(LONGEST_CODE + 1)] {
            assert_eq!(label(odd), OTHER, "{odd}");
        }
        let labels: BTreeSet<&str> = (0..1_000).map(|number| label(&format!("code-{number}"))).collect();
        assert_eq!(labels.len(), CODES);
        assert_eq!(providers.error_type(reason.into()), "GRPCProviderError");
    }

    #[test]
    fn a_change_of_health_is_reported() {
        let mut exposition = Exposition::new();
        let providers = Providers::register(exposition.registry());
        providers.discovered("vault");
        let changed = [true, true, false, false, true].map(|healthy| providers.set_healthy("vault", healthy));
        assert_eq!(changed, [true, false, true, false, true]);
        assert!(exposition.encode(Format::Classic).unwrap().contains("provider=\"vault\"} 1"));
    }
}
