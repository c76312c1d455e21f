//! The volumes that rotation refreshes, and the keys by which they share fetches.

use std::sync::Arc;

use super::super::layout::{Digest, Group};
use super::super::locks::{Epoch, TargetLock};
use super::super::target::TargetPath;
use super::credentials::Credentials;
use super::last_write::LastWrite;
use crate::backend::FetchIdentity;
use crate::model::{ClassRef, PodRef};

/// A volume that is refreshed.
#[derive(Debug)]
pub(in crate::node) struct TrackedVolume {
    pub(in crate::node) target: TargetPath,
    pub(in crate::node) pod: PodRef,
    pub(in crate::node) class: ClassRef,
    pub(in crate::node) group: Option<Group>,
    pub(in crate::node::volume) lock: Arc<TargetLock>,
    /// The target's epoch when the volume was published, or found published.
    pub(in crate::node::volume) epoch: Epoch,
}

/// What decides the content of a volume: all volumes of one key are refreshed by one fetch
/// (docs/decisions.md#d3).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::node) struct FetchKey {
    pub(in crate::node) class: ClassRef,
    pub(in crate::node) identity: FetchIdentity,
    /// Of the volume attributes that the pod's author wrote; they override parameters of the class.
    pub(super) attributes: Digest,
}

/// A work item of rotation's schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::node) enum WorkItem {
    /// Find the fetch keys of the volumes of a class that have none.
    Plan(ClassRef),
    /// Fetch once, for all volumes of the key.
    Fetch(Arc<FetchKey>),
}

/// A volume with its credentials and content, as they were at the start of a work item.
#[derive(Clone)]
pub(in crate::node) struct Member {
    pub(in crate::node) volume: Arc<TrackedVolume>,
    pub(in crate::node) credentials: Credentials,
    /// `None` if the content is unknown: after a restart, or after a write that failed.
    pub(in crate::node) last_write: Option<LastWrite>,
}

/// The state of a volume's pod, as the registry last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::node) enum PodState {
    #[default]
    Unknown,
    /// With the value of the annotation that asks for refreshes.
    Running(Option<String>),
    /// The pod is being deleted or does not exist; its volumes need no refresh.
    Terminating,
}
