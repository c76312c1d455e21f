//! The pod a volume belongs to.
//!
//! Read from the volume context that the kubelet fills in (`podInfoOnMount`); nothing here is looked up.
//! Used to find the class and to tell people which pod an error is about.

use std::fmt;

/// Who the volume is for, as the kubelet says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID; empty when the kubelet did not send it.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
