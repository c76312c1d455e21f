//! A SecretProviderClass in our own terms.
//!
//! Holds what a fetch needs and nothing else; where it comes from is the business of `classes`.
//! Control goes on to `provider`, which reads the parameters.

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
    /// Which class this is.
    pub reference: ClassRef,
    /// `spec.provider` as written; empty when unset.
    pub provider: String,
    /// `spec.parameters` as written; empty when unset.
    pub parameters: BTreeMap<String, String>,
    /// `spec.secretObjects` as written; empty when unset.
    pub secret_objects: Vec<SecretObject>,
    /// The annotations of ours, `keyvault-csi/...`; others are not kept.
    pub annotations: BTreeMap<String, String>,
    /// The API server's `resourceVersion`; empty where there is none.
    pub version: String,
}

/// What the annotations begin with that are kept of a class.
pub const ANNOTATION_PREFIX: &str = "keyvault-csi/";

/// How often the volumes of a class are refreshed, in place of the driver's own interval: a duration like `30s`.
pub const INTERVAL_ANNOTATION: &str = "keyvault-csi/rotation-poll-interval";

/// What asks for a refresh, on a class or on a pod, whenever its value changes.
pub const REFRESH_ANNOTATION: &str = "keyvault-csi/refresh";

/// The shortest interval that a class may ask for; whoever may write classes need not be whoever pays for the vault.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

impl Class {
    /// Whether a fetch for the other one brings the same. The annotations count: a changed one asks for a refresh.
    pub fn asks_as(&self, other: &Class) -> bool {
        self.provider == other.provider && self.parameters == other.parameters && self.annotations == other.annotations
    }

    /// The interval that the class asks for, [`SHORTEST_INTERVAL`] at least.
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
