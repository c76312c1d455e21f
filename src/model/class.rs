//! A SecretProviderClass in our own terms.
//!
//! Holds what a fetch needs and nothing else; where it comes from is the business of `classes`.
//! Control goes on to `provider`, which reads the parameters.

use std::collections::BTreeMap;
use std::fmt;

use super::class_spec::{ClassSpec, SecretObject};

/// Namespace and name of a SecretProviderClass.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassRef {
    /// The namespace of the class, which is the pod's.
    pub namespace: String,
    /// The name of the class.
    pub name: String,
}

impl fmt::Display for ClassRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The part of a SecretProviderClass that a volume is filled from (spec/driver.md §4.1).
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

impl Class {
    /// A class of this `spec`, without annotations and version.
    pub fn new(reference: ClassRef, spec: ClassSpec) -> Class {
        let ClassSpec { provider, parameters, secret_objects } = spec;
        Class { reference, provider, parameters, secret_objects, annotations: BTreeMap::new(), version: String::new() }
    }
}
