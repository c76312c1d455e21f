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
/// Not printable as a whole: context and secrets hold tokens.
pub struct PublishRequest {
    /// Where the volume is to appear.
    pub target: TargetPath,
    /// The pod.
    pub pod: PodRef,
    /// The class that the volume's attributes name, in the pod's namespace. A name that is none is an error only when
    /// the class is needed, since a volume that is there stays.
    pub class: Result<ClassRef, ClassNameError>,
    /// The whole volume context; overlays the class's parameters
    /// (docs/reference/csi-driver.md#mount-request).
    pub context: BTreeMap<String, String>,
    /// The data of the volume's nodePublishSecretRef.
    pub secrets: BTreeMap<String, SecretString>,
    /// The group that may read the files.
    pub group: Option<Group>,
    /// Whether the pod's volume is read-only.
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
