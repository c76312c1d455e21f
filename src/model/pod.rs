//! The pod a volume belongs to.
//!
//! [`PodRef`] is read from the volume context that the kubelet fills in (`podInfoOnMount`); nothing is looked up for it.
//! [`Pod`] is what the API server tells beyond that, where somebody needs it.

use std::collections::BTreeMap;
use std::fmt;

use super::names::{Namespace, ResourceName, Uid};

/// Who the volume is for, as the kubelet says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub name: ResourceName,
    /// The pod's UID; empty when the kubelet did not send it.
    pub uid: String,
}

impl PodRef {
    /// The UID of the pod in whose directory a path is: the part between `/pods/` and `/volumes/`, where a path has both.
    ///
    /// The last such part counts: the root of a kubelet that runs in a pod may lie in a volume of that pod.
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

/// A pod as far as the API server tells it to us: one that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Which pod this is.
    pub reference: PodRef,
    /// Whether it has a deletionTimestamp.
    pub terminating: bool,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// The annotations of ours, `keyvault-csi/...`; others are not kept.
    pub annotations: BTreeMap<String, String>,
}

/// An owner of an object: who it goes with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Group and version of the owner.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID, which alone says who it is.
    pub uid: Uid,
    /// Whether it is the object's controller.
    pub controller: bool,
}
