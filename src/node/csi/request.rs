//! Parses CSI messages to checked requests.
//!
//! Pure. Every refusal names its field and the change that the kubelet or the pod's author has to
//! make; values of secrets and of the volume context never enter a text.

use keyvault_csi_proto::csi::volume_capability::{AccessType, MountVolume};
use keyvault_csi_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use tokio::time::Instant;

use crate::model::{Caller, ClassRef, InvalidName, PodInfoError, ResourceName, SecretString, attribute};
use crate::node::volume::{ClassNameError, Group, PublishRequest, TargetPath, TargetPathError};

/// Why a request is refused before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidRequest {
    #[error("volume capability missing in request")]
    CapabilityMissing,
    #[error("volume id missing in request")]
    VolumeIdMissing,
    #[error("target path missing in request")]
    TargetPathMissing,
    #[error("volume context missing in request")]
    ContextMissing,
    #[error("target path {0}")]
    TargetPath(#[from] TargetPathError),
    #[error("block volumes are not supported: use the volume as a file system")]
    Block,
    #[error("volume_mount_group is not a group id in decimal; the pod's fsGroup must be a number from 0 to 4294967294")]
    Group,
    #[error("{0} is missing in the volume context: the CSIDriver object of this driver must have podInfoOnMount: true")]
    PodInfoMissing(&'static str),
    #[error("{key} of the volume context {source}")]
    PodInfoInvalid { key: &'static str, source: InvalidName },
}

impl From<PodInfoError> for InvalidRequest {
    fn from(error: PodInfoError) -> InvalidRequest {
        match error {
            PodInfoError::Missing(key) => InvalidRequest::PodInfoMissing(key),
            PodInfoError::Invalid { key, source } => InvalidRequest::PodInfoInvalid { key, source },
        }
    }
}

/// Checks a NodePublishVolume in upstream's order (docs/reference/csi-driver.md#publish-checks),
/// then by our own rules.
pub(super) fn publish(message: NodePublishVolumeRequest, deadline: Instant) -> Result<PublishRequest, InvalidRequest> {
    let capability = message.volume_capability.ok_or(InvalidRequest::CapabilityMissing)?;
    let target = identified(&message.volume_id, &message.target_path)?;
    if message.volume_context.is_empty() {
        return Err(InvalidRequest::ContextMissing);
    }
    let group = match capability.access_type {
        Some(AccessType::Mount(MountVolume { volume_mount_group, .. })) => parse_group(&volume_mount_group)?,
        Some(AccessType::Block(_)) => return Err(InvalidRequest::Block),
        None => None,
    };
    let secrets = message.secrets.into_iter().map(|(key, value)| (key, SecretString::from(value)));
    let caller = Caller::parse(message.volume_context.into_iter().collect(), secrets.collect())?;
    let class = match caller.attributes().get(attribute::CLASS).filter(|name| !name.is_empty()) {
        Some(name) => ResourceName::new(name.as_str()).map_err(ClassNameError::Invalid),
        None => Err(ClassNameError::Missing),
    };
    Ok(PublishRequest {
        target,
        class: class.map(|name| ClassRef { namespace: caller.pod.namespace.clone(), name }),
        caller,
        group,
        read_only: message.readonly,
        deadline,
    })
}

/// Checks a NodeUnpublishVolume (docs/reference/csi-driver.md#unpublish-checks).
pub(super) fn unpublish(message: &NodeUnpublishVolumeRequest) -> Result<TargetPath, InvalidRequest> {
    identified(&message.volume_id, &message.target_path)
}

fn identified(volume_id: &str, target_path: &str) -> Result<TargetPath, InvalidRequest> {
    if volume_id.is_empty() {
        return Err(InvalidRequest::VolumeIdMissing);
    }
    if target_path.is_empty() {
        return Err(InvalidRequest::TargetPathMissing);
    }
    Ok(TargetPath::new(target_path)?)
}

fn parse_group(text: &str) -> Result<Option<Group>, InvalidRequest> {
    if text.is_empty() {
        return Ok(None);
    }
    // The highest number means "no change" to chown.
    match text.parse::<u32>() {
        Ok(gid) if gid != u32::MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(Group(gid))),
        Ok(_) | Err(_) => Err(InvalidRequest::Group),
    }
}
