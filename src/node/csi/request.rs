//! From protobuf to checked requests.
//!
//! Pure. Every refusal names its field and says what the kubelet or the pod's author has to change; values of secrets
//! and of the volume context never enter a text. The checked requests go to `volume`.

use std::collections::BTreeMap;

use keyvault_csi_proto::csi::volume_capability::{AccessType, MountVolume};
use keyvault_csi_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use tokio::time::Instant;

use crate::model::{ClassRef, InvalidName, Namespace, PodRef, ResourceName, SecretString, Uid};
use crate::node::volume::{ClassNameError, Group, PublishRequest, TargetPath, TargetPathError};

/// Why a request is refused before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
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

const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
const CLASS: &str = "secretProviderClass";

/// Checks a NodePublishVolume in upstream's order (docs/reference/csi-driver.md#publish-checks),
/// then what is ours.
pub(super) fn publish(message: NodePublishVolumeRequest, deadline: Instant) -> Result<PublishRequest, Refusal> {
    let capability = message.volume_capability.ok_or(Refusal::CapabilityMissing)?;
    let target = identified(&message.volume_id, &message.target_path)?;
    if message.volume_context.is_empty() {
        return Err(Refusal::ContextMissing);
    }
    let group = match capability.access_type {
        Some(AccessType::Mount(MountVolume { volume_mount_group, .. })) => parse_group(&volume_mount_group)?,
        Some(AccessType::Block(_)) => return Err(Refusal::Block),
        None => None,
    };
    let context: BTreeMap<String, String> = message.volume_context.into_iter().collect();
    let pod = pod(&context)?;
    let class = match context.get(CLASS).filter(|name| !name.is_empty()) {
        Some(name) => ResourceName::new(name.as_str()).map_err(ClassNameError::Invalid),
        None => Err(ClassNameError::Missing),
    };
    Ok(PublishRequest {
        target,
        class: class.map(|name| ClassRef { namespace: pod.namespace.clone(), name }),
        pod,
        secrets: message.secrets.into_iter().map(|(key, value)| (key, SecretString::from(value))).collect(),
        context,
        group,
        read_only: message.readonly,
        deadline,
    })
}

/// Who the volume is for. The kubelet says it where the CSIDriver object has `podInfoOnMount`; elsewhere a pod's
/// author may.
fn pod(context: &BTreeMap<String, String>) -> Result<PodRef, Refusal> {
    let text = |key: &'static str| context.get(key).filter(|value| !value.is_empty());
    let required = |key: &'static str| text(key).ok_or(Refusal::PodInfoMissing(key));
    let invalid = |key: &'static str| move |source| Refusal::PodInfoInvalid { key, source };
    let (name, namespace) = (required(POD_NAME)?, required(POD_NAMESPACE)?);
    if let Some(account) = text(SERVICE_ACCOUNT) {
        ResourceName::new(account.as_str()).map_err(invalid(SERVICE_ACCOUNT))?;
    }
    Ok(PodRef {
        name: ResourceName::new(name.as_str()).map_err(invalid(POD_NAME))?,
        namespace: Namespace::new(namespace.as_str()).map_err(invalid(POD_NAMESPACE))?,
        uid: match text(POD_UID) {
            Some(uid) => Uid::new(uid.as_str()).map_err(invalid(POD_UID))?.into(),
            None => String::new(),
        },
    })
}

/// Checks a NodeUnpublishVolume (docs/reference/csi-driver.md#unpublish-checks).
pub(super) fn unpublish(message: &NodeUnpublishVolumeRequest) -> Result<TargetPath, Refusal> {
    identified(&message.volume_id, &message.target_path)
}

fn identified(volume_id: &str, target_path: &str) -> Result<TargetPath, Refusal> {
    if volume_id.is_empty() {
        return Err(Refusal::VolumeIdMissing);
    }
    if target_path.is_empty() {
        return Err(Refusal::TargetPathMissing);
    }
    Ok(TargetPath::new(target_path)?)
}

fn parse_group(text: &str) -> Result<Option<Group>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    // The highest number means "leave it" to chown, and would silently do so.
    match text.parse::<u32>() {
        Ok(gid) if gid != u32::MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(Group(gid))),
        Ok(_) | Err(_) => Err(Refusal::Group),
    }
}
