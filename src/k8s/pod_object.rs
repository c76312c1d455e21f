//! From an object of the API server to a pod of ours.
//!
//! Pure. Keeps what we use; labels, other people's annotations and managed fields go at once. `pods` fills its memory
//! with it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use crate::model::{ANNOTATION_PREFIX, Owner, Pod, PodRef};

/// What is kept of a pod's metadata.
pub(super) fn read(metadata: ObjectMeta) -> Pod {
    let annotations = metadata.annotations.unwrap_or_default();
    Pod {
        reference: PodRef {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
        },
        ending: metadata.deletion_timestamp.is_some(),
        owners: metadata.owner_references.unwrap_or_default().into_iter().map(owner).collect(),
        annotations: annotations.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect(),
    }
}

fn owner(reference: OwnerReference) -> Owner {
    Owner {
        api_version: reference.api_version,
        kind: reference.kind,
        name: reference.name,
        uid: reference.uid,
        controller: reference.controller.unwrap_or_default(),
    }
}

/// The volumes of a whole pod that `driver` fills, as volume and class.
pub(super) fn volumes(pod: &Value, driver: &str) -> BTreeMap<String, String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let ours = volumes.iter().filter(|volume| text(volume, "/csi/driver").as_deref() == Some(driver));
    ours.filter_map(|volume| Some((text(volume, "/name")?, text(volume, "/csi/volumeAttributes/secretProviderClass")?)))
        .collect()
}
