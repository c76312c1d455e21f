//! A checked request to publish a volume.

use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;

use super::error::ClassNameError;
use super::layout::Group;
use super::target::TargetPath;
use crate::model::{ClassRef, PodRef, SecretString};

/// A checked NodePublishVolume.
///
/// `Debug` omits context and secrets, which hold tokens.
pub struct PublishRequest {
    /// Where the volume is to be mounted.
    pub target: TargetPath,
    /// The pod that mounts it.
    pub pod: PodRef,
    /// The class that the volume's attributes name, in the pod's namespace. An invalid name fails
    /// only a publish that needs the class: a volume that is published already stays.
    pub class: Result<ClassRef, ClassNameError>,
    /// The whole volume context; overrides parameters of the class
    /// (docs/reference/csi-driver.md#mount-request).
    pub context: BTreeMap<String, String>,
    /// The data of the volume's nodePublishSecretRef.
    pub secrets: BTreeMap<String, SecretString>,
    /// The group that may read the files.
    pub group: Option<Group>,
    /// Whether the volume is mounted read-only; other volumes are refused.
    pub read_only: bool,
    /// When the caller must have an answer.
    pub deadline: Instant,
}

impl fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PublishRequest { target, pod, class, group, read_only, .. } = self;
        f.debug_struct("PublishRequest")
            .field("target", target)
            .field("pod", pod)
            .field("class", class)
            .field("group", group)
            .field("read_only", read_only)
            .finish_non_exhaustive()
    }
}
