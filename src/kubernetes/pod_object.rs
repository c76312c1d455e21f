//! Parses a pod from an object of the API server.
//!
//! Pure. Keeps only what we use: labels, foreign annotations and managed fields are dropped at
//! once, because they would fill the cache.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use crate::model::{ANNOTATION_PREFIX, Namespace, Owner, Pod, PodRef, ResourceName, Uid};

/// The pod with this metadata; `None` without a valid name, which no API server sends.
pub(super) fn read(metadata: ObjectMeta) -> Option<Pod> {
    let annotations = metadata.annotations.unwrap_or_default();
    Some(Pod {
        reference: PodRef {
            namespace: Namespace::new(metadata.namespace?).ok()?,
            name: ResourceName::new(metadata.name?).ok()?,
            uid: metadata.uid.unwrap_or_default(),
        },
        terminating: metadata.deletion_timestamp.is_some(),
        owners: owners(metadata.owner_references),
        annotations: annotations.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect(),
    })
}

/// The owners of an object. The API server accepts any text as the UID of an owner; an owner with a
/// UID that no object can have is dropped.
pub(super) fn owners(references: Option<Vec<OwnerReference>>) -> Vec<Owner> {
    references.unwrap_or_default().into_iter().filter_map(owner).collect()
}

fn owner(reference: OwnerReference) -> Option<Owner> {
    Some(Owner {
        api_version: reference.api_version,
        kind: reference.kind,
        name: reference.name,
        uid: Uid::new(reference.uid).ok()?,
        controller: reference.controller.unwrap_or_default(),
    })
}

/// The volumes of `driver` in a whole pod, as volume and class.
pub(super) fn volumes(pod: &Value, driver: &str) -> BTreeMap<String, String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let ours = volumes.iter().filter(|volume| text(volume, "/csi/driver").as_deref() == Some(driver));
    ours.filter_map(|volume| Some((text(volume, "/name")?, text(volume, "/csi/volumeAttributes/secretProviderClass")?)))
        .collect()
}
