//! Providers as label values: a name counts once a provider of that name was found, and only so many are told apart.
//!
//! Names come from classes and error codes from providers, so that both are without bound; what is beyond the bound is `other`.
//! The gauge of providers' health is here, too.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Metrics, error_type};
use crate::model::Reason;

/// How many providers are told apart; a node has a few.
const PROVIDERS: usize = 16;
/// How many error codes of providers are told apart.
const CODES: usize = 64;
/// The longest error code that becomes a label.
const LONGEST_CODE: usize = 64;
/// What stands for all others.
const OTHER: &str = "other";
/// The provider that is built in.
const AZURE: &str = "azure";

/// The `provider` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Not known: the call ended before the class was read, or there was nothing to do.
    None,
    /// Azure, built in or not.
    Azure,
    /// Another one that was found on this node.
    Named(&'static str),
    /// A name that no provider has, or one too many. The name itself comes from users and would make the label unbounded.
    Other,
}

/// Why a publish or a refresh failed.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// The reason.
    pub reason: Reason,
    /// What another provider calls it, which upstream has as `error_type`.
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

/// Texts from outside that have become label values. They stay for the life of the process, as series do.
#[derive(Debug)]
struct Words {
    most: usize,
    known: Mutex<BTreeSet<&'static str>>,
}

impl Words {
    fn new(most: usize) -> Words {
        Words { most, known: Mutex::default() }
    }

    fn find(&self, word: &str) -> Option<&'static str> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(word).copied()
    }

    /// The word as a label value; `None` when there are too many already.
    fn keep(&self, word: &str) -> Option<&'static str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.get(word) {
            return Some(kept);
        }
        if known.len() >= self.most {
            return None;
        }
        let kept: &'static str = Box::leak(word.to_owned().into_boxed_str());
        known.insert(kept);
        Some(kept)
    }
}

/// The providers that were met, their error codes, and how they fare.
#[derive(Debug)]
pub(super) struct Providers {
    names: Words,
    codes: Words,
    healthy: Family<Health, Gauge>,
}

impl Providers {
    /// Instruments that have counted nothing yet, in this registry.
    pub(super) fn registered(registry: &mut Registry) -> Providers {
        let healthy = Family::default();
        registry.register("provider_healthy", "Whether the provider answers on its socket", healthy.clone());
        Providers { names: Words::new(PROVIDERS), codes: Words::new(CODES), healthy }
    }

    /// The `error_type` label: a provider's own code where it gave one.
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

impl Metrics {
    /// Notes that a provider of this name was found.
    pub fn met(&self, name: &str) {
        self.0.providers.names.keep(name);
    }

    /// The label of the provider that a class names.
    pub fn provider(&self, name: &str) -> Provider {
        match self.0.providers.names.find(name) {
            _ if name == AZURE => Provider::Azure,
            // No class was read.
            _ if name.is_empty() => Provider::None,
            Some(name) => Provider::Named(name),
            None => Provider::Other,
        }
    }

    /// The names of the providers that were found.
    pub fn providers(&self) -> Vec<&'static str> {
        self.0.providers.names.known.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Notes whether a provider answers; says whether that is another answer than the last one.
    pub fn provider_healthy(&self, name: &str, healthy: bool) -> bool {
        let labels = Health { os_type: std::env::consts::OS, provider: self.provider(name).as_str() };
        let before = self.0.providers.healthy.get(&labels).map(|gauge| gauge.get());
        self.0.providers.healthy.get_or_create(&labels).set(i64::from(healthy));
        before != Some(i64::from(healthy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_bounded() {
        let metrics = Metrics::new();
        assert_eq!(metrics.provider("vault"), Provider::Other);
        assert_eq!(metrics.provider("azure"), Provider::Azure);
        (0..100).for_each(|number| metrics.met(&format!("provider-{number}")));
        assert_eq!(metrics.provider("provider-3"), Provider::Named("provider-3"));
        assert_eq!(metrics.provider("provider-99"), Provider::Other);
        assert_eq!(metrics.providers().len(), PROVIDERS);
        let reason = Reason::ProviderFailed;
        let label = |code: &str| metrics.0.providers.error_type(Cause { reason, code: Some(code) });
        assert_eq!(label("AuthenticationFailed"), "AuthenticationFailed");
        for odd in ["two words", "a\"b", &"x".repeat(LONGEST_CODE + 1)] {
            assert_eq!(label(odd), OTHER, "{odd}");
        }
        let labels: BTreeSet<&str> = (0..1_000).map(|number| label(&format!("code-{number}"))).collect();
        assert_eq!(labels.len(), CODES);
        assert_eq!(metrics.0.providers.error_type(reason.into()), "GRPCProviderError");
    }

    #[test]
    fn a_change_of_health_is_news() {
        let metrics = Metrics::new();
        metrics.met("vault");
        let told = [true, true, false, false, true].map(|healthy| metrics.provider_healthy("vault", healthy));
        assert_eq!(told, [true, false, true, false, true]);
        assert!(metrics.encode().unwrap().contains("provider=\"vault\"} 1"));
    }
}
