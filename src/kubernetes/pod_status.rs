//! SecretProviderClassPodStatus: the desired status of a published volume, and the update to a
//! stored one.
//!
//! Pure. The object has all fields of upstream's
//! (docs/reference/csi-driver.md#secretproviderclasspodstatus). Ours are additional and optional,
//! and an API server with upstream's CRD drops them, which must not count as a difference.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{self, NODE_LABEL};
use super::resources;
use crate::model::{ObjectVersion, PodRef, Reason, ResourceName};

/// The status of a SecretProviderClassPodStatus; the object has no spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    /// Name of the pod.
    pub(super) pod_name: String,
    /// Name of the SecretProviderClass.
    pub(super) secret_provider_class_name: String,
    /// Whether the volume is mounted.
    pub(super) mounted: bool,
    /// Path of the mount on the node; the first one where a pod mounts the class more than once.
    pub(super) target_path: String,
    /// The objects in the volume and their versions, sorted by id.
    pub(super) objects: Vec<Object>,
    /// All mounts on the node, where a pod mounts the class more than once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) target_paths: Vec<String>,
    /// When the versions of the objects changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub(super) last_changed: Option<String>,
    /// Why the last refresh failed; unset when it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What failed, for people; unset when the last refresh succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

/// One object of a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub(super) struct Object {
    /// Type and name of the object.
    pub(super) id: String,
    /// Its version.
    pub(super) version: String,
}

/// The desired status of one published volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DesiredStatus {
    pub(super) pod: PodRef,
    pub(super) class: ResourceName,
    pub(super) target: String,
    /// The objects in the volume; `None` keeps those in the status.
    pub(super) objects: Option<Vec<Object>>,
    /// Reason and message of a failed refresh.
    pub(super) failure: Option<(Reason, String)>,
    /// Whether the object should exist already.
    pub(super) exists: bool,
    pub(super) node: String,
    /// RFC 3339.
    pub(super) now: String,
}

/// The update to a stored object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StatusUpdate {
    /// It is up to date.
    None,
    /// Replace it by this.
    Replace(Box<DynamicObject>),
    /// It belongs to another pod or class, for which the same name results.
    NameTaken,
    /// It is being deleted; a new one can be created afterwards.
    Terminating,
}

/// The objects of a status, sorted by id; of several with one id the last, as in upstream's map.
pub(super) fn objects(versions: &[ObjectVersion]) -> Vec<Object> {
    let by_id: BTreeMap<&str, &str> =
        versions.iter().map(|version| (version.id.as_str(), version.version.as_str())).collect();
    by_id.into_iter().map(|(id, version)| Object { id: id.to_owned(), version: version.to_owned() }).collect()
}

impl DesiredStatus {
    /// The object to create.
    pub(super) fn new_object(&self, name: &ResourceName) -> DynamicObject {
        let mut object = DynamicObject::new(name, &resources::pod_statuses());
        object.metadata.namespace = Some(self.pod.namespace.to_string());
        self.claim(&mut object);
        object.data = data(&self.status(&Status::default(), self.target.clone(), Vec::new()));
        object
    }

    /// The update to a stored object; `prunes` says that the server drops the fields that
    /// upstream's CRD lacks.
    pub(super) fn update(&self, stored: DynamicObject, prunes: bool) -> StatusUpdate {
        if stored.metadata.deletion_timestamp.is_some() {
            return StatusUpdate::Terminating;
        }
        // A malformed status counts as empty.
        let old = stored.data.get("status").map(Status::deserialize).and_then(Result::ok).unwrap_or_default();
        let differs = |old: &str, ours: &str| !old.is_empty() && old != ours;
        if differs(&old.pod_name, &self.pod.name) || differs(&old.secret_provider_class_name, &self.class) {
            return StatusUpdate::NameTaken;
        }
        let (target, targets) = self.targets(&stored, &old);
        let mut new = self.status(&old, target, targets);
        if old.objects == new.objects && old.last_changed.is_some() {
            new.last_changed.clone_from(&old.last_changed);
        }
        let mut object = stored.clone();
        self.claim(&mut object);
        let compared = |status: &Status| {
            let mut status = status.clone();
            // A new time alone is no change.
            status.last_changed = None;
            if prunes {
                (status.target_paths, status.reason, status.message) = (Vec::new(), None, None);
            }
            status
        };
        if compared(&old) == compared(&new) && object.metadata == stored.metadata {
            return StatusUpdate::None;
        }
        object.types = DynamicObject::new("", &resources::pod_statuses()).types;
        object.metadata.managed_fields = None;
        object.data = data(&new);
        StatusUpdate::Replace(Box::new(object))
    }

    /// Sets this node's label, and the pod as the only owner.
    fn claim(&self, object: &mut DynamicObject) {
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert(NODE_LABEL.to_owned(), names::node_label(&self.node));
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.pod.name.to_string(),
            uid: self.pod.uid.clone(),
            ..OwnerReference::default()
        }]);
    }

    /// The target path, and all paths if there are several. The first path stays: two volumes of
    /// one pod that share the status must not overwrite each other's path again and again.
    fn targets(&self, stored: &DynamicObject, old: &Status) -> (String, Vec<String>) {
        let owners = stored.metadata.owner_references.as_deref().unwrap_or_default();
        let same_pod = owners.iter().any(|owner| owner.uid == self.pod.uid);
        if !same_pod || old.target_path.is_empty() || old.target_path == self.target && old.target_paths.is_empty() {
            return (self.target.clone(), Vec::new());
        }
        let mut all = old.target_paths.clone();
        all.extend([old.target_path.clone(), self.target.clone()]);
        all.sort();
        all.dedup();
        (old.target_path.clone(), all)
    }

    fn status(&self, old: &Status, target_path: String, target_paths: Vec<String>) -> Status {
        let failure = self.failure.as_ref();
        Status {
            pod_name: self.pod.name.to_string(),
            secret_provider_class_name: self.class.to_string(),
            mounted: true,
            target_path,
            objects: self.objects.clone().unwrap_or_else(|| old.objects.clone()),
            target_paths,
            last_changed: Some(self.now.clone()),
            reason: failure.map(|(reason, _)| reason.to_string()),
            message: failure.map(|(_, text)| text.clone()),
        }
    }
}

/// Whether the server dropped fields of ours from the object that was sent.
pub(super) fn pruned(sent: &DynamicObject, stored: &DynamicObject) -> bool {
    let changed = |object: &DynamicObject| object.data.pointer("/status/lastChanged").is_some();
    changed(sent) && !changed(stored)
}

fn data(status: &Status) -> Value {
    serde_json::json!({ "status": status })
}
