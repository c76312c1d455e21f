//! A checked request to publish a volume.

use tokio::time::Instant;

use super::error::ClassNameError;
use super::layout::Group;
use super::target::TargetPath;
use crate::model::{Caller, ClassRef};

/// A checked NodePublishVolume.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// Where the volume is to be mounted.
    pub target: TargetPath,
    /// The pod that mounts it, and what the kubelet sends for the pod.
    pub caller: Caller,
    /// The class that the volume's attributes name, in the pod's namespace. An invalid name fails
    /// only a publish that needs the class: a volume that is published already stays.
    pub class: Result<ClassRef, ClassNameError>,
    /// The group that may read the files.
    pub group: Option<Group>,
    /// Whether the volume is mounted read-only; other volumes are refused.
    pub read_only: bool,
    /// When the caller must have an answer.
    pub deadline: Instant,
}
