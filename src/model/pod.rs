//! The pod a volume belongs to.
//!
//! A [`PodRef`] comes from the volume context that the kubelet writes (`podInfoOnMount`), a [`Pod`]
//! from the API server.

use std::collections::BTreeMap;
use std::fmt;

use super::names::{Namespace, ResourceName, Uid};

/// The identity of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub name: ResourceName,
    /// The pod's UID; empty if the kubelet did not send it.
    pub uid: String,
}

impl PodRef {
    /// The UID of the pod in whose directory a path is: the part between `/pods/` and `/volumes/`.
    ///
    /// The last such part counts: the root of a kubelet that runs in a pod may be in a volume of
    /// that pod.
    pub fn uid_in(path: &str) -> Option<&str> {
        let parts: Vec<&str> = path.split('/').collect();
        let found = parts.windows(4).rposition(|parts| parts[0] == "pods" && parts[2] == "volumes");
        found.map(|at| parts[at + 1])
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod of the API server that has not terminated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The pod's identity.
    pub reference: PodRef,
    /// Whether it has a deletionTimestamp.
    pub terminating: bool,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// The annotations `keyvault-csi/...`; others are not kept.
    pub annotations: BTreeMap<String, String>,
}

/// An owner reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID, which alone identifies it.
    pub uid: Uid,
    /// Whether it is the object's controller.
    pub controller: bool,
}
