//! A SecretProviderClass, with the fields that a fetch needs.
//!
//! Parameters are as written: the provider of the class parses them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::class_spec::{ClassSpec, SecretObject};
use super::names::{Namespace, ResourceName};
use crate::formats::duration::{self, DurationError};

/// Namespace and name of a SecretProviderClass.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassRef {
    /// The namespace of the class, which is the pod's.
    pub namespace: Namespace,
    /// The name of the class.
    pub name: ResourceName,
}

impl fmt::Display for ClassRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The part of a SecretProviderClass that a volume is filled from
/// (docs/reference/csi-driver.md#secretproviderclass).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Namespace and name.
    pub reference: ClassRef,
    /// `spec.provider` as written; empty when unset.
    pub provider: String,
    /// `spec.parameters` as written; empty when unset.
    pub parameters: BTreeMap<String, String>,
    /// `spec.secretObjects` as written; empty when unset.
    pub secret_objects: Vec<SecretObject>,
    /// The annotations `keyvault-csi/...`; others are not kept.
    pub annotations: BTreeMap<String, String>,
    /// The `resourceVersion`; empty for a class from a file.
    pub version: String,
}

/// The prefix of the annotations that are kept.
pub const ANNOTATION_PREFIX: &str = "keyvault-csi/";

/// The interval at which the volumes of a class are refreshed, instead of the driver's: a duration
/// like `30s`.
pub const INTERVAL_ANNOTATION: &str = "keyvault-csi/rotation-poll-interval";

/// A change of its value, on a class or on a pod, requests a refresh.
pub const REFRESH_ANNOTATION: &str = "keyvault-csi/refresh";

/// The shortest interval that a class may ask for: its author need not be the one who pays for the
/// vault.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

impl Class {
    /// Whether a fetch for the other class has the same result. Annotations count: a change
    /// requests a refresh.
    pub fn asks_as(&self, other: &Class) -> bool {
        self.provider == other.provider && self.parameters == other.parameters && self.annotations == other.annotations
    }

    /// The interval that the class asks for, at least [`SHORTEST_INTERVAL`].
    pub fn rotation_interval(&self) -> Option<Duration> {
        self.annotated_interval()?.ok().map(|interval| interval.max(SHORTEST_INTERVAL))
    }

    /// What is wrong with the interval that the class asks for.
    pub fn rotation_interval_mistake(&self) -> Option<String> {
        let error = self.annotated_interval()?.err()?;
        Some(format!("annotation {INTERVAL_ANNOTATION} is {error}"))
    }

    fn annotated_interval(&self) -> Option<Result<Duration, DurationError>> {
        self.annotations.get(INTERVAL_ANNOTATION).map(|text| duration::parse(text.trim()))
    }

    /// A class of this `spec`, without annotations and version.
    pub fn new(reference: ClassRef, spec: ClassSpec) -> Class {
        let ClassSpec { provider, parameters, secret_objects } = spec;
        Class { reference, provider, parameters, secret_objects, annotations: BTreeMap::new(), version: String::new() }
    }
}
