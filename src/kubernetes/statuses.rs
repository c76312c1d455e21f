//! A watch cache of this node's SecretProviderClassPodStatus objects: which pod mounts which class.
//!
//! Selects by the node's label, which upstream's driver sets, too. Does not use the paths in them:
//! the right to write a status must not extend to reading files of the node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::DynamicObject;
use serde::Deserialize as _;

use super::client::Connection;
use super::names::{self, NODE_LABEL};
use super::pod_status::Status;
use super::resources;
use super::watch::{self, Followed, Sink};
use crate::model::{ClassRef, Namespace, Owner, PodRef, ResourceName, Uid};
use crate::queue::notify::{Notifier, Subscription};

/// A pod that mounts a class, according to a status object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodStatus {
    /// The pod; its UID comes from the object's owner reference.
    pub pod: PodRef,
    /// The class in the pod's namespace.
    pub class: ClassRef,
    /// The status object itself, as an owner of other objects.
    pub object: Owner,
}

/// Namespace and name of a status object.
pub type StatusKey = (Namespace, ResourceName);

/// The statuses of this node. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub struct Statuses {
    connection: Connection,
    node: String,
    known: Arc<Mutex<HashMap<StatusKey, PodStatus>>>,
    notifier: Notifier<StatusKey, PodStatus>,
}

impl Statuses {
    /// An empty cache; [`Statuses::follow`] fills it.
    pub fn new(connection: Connection, node: &str) -> Statuses {
        Statuses { connection, node: node.to_owned(), known: Arc::default(), notifier: Notifier::new() }
    }

    /// Keeps the cache up to date; never returns.
    pub async fn follow(self) {
        let followed = Followed {
            labels: Some(format!("{NODE_LABEL}={}", names::node_label(&self.node))),
            ..Followed::all(
                resources::pod_statuses(),
                "volumes that were published before this driver started are not known",
                "grant list and watch on secretproviderclasspodstatuses of secrets-store.csi.x-k8s.io (ClusterRole secretprovidersyncing-role)",
            )
        };
        watch::follow(self.connection.clone(), followed, self).await;
    }

    /// Every cached status.
    pub fn all(&self) -> Vec<PodStatus> {
        self.lock().values().cloned().collect()
    }

    /// The status object of this pod and class, as an owner of other objects.
    pub fn object(&self, pod: &PodRef, class: &ClassRef) -> Option<Owner> {
        let known = self.lock();
        let mut of = known.values().filter(|status| status.pod == *pod && status.class == *class);
        of.next().map(|status| status.object.clone())
    }

    /// Subscribes to added and changed statuses.
    pub fn changes(&self) -> Subscription<StatusKey, PodStatus> {
        self.notifier.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StatusKey, PodStatus>> {
        // Every change is one insertion, removal or assignment, so that a panic leaves no half-made
        // entry.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Statuses {
    type Key = StatusKey;
    type Entry = PodStatus;

    fn read(&self, object: DynamicObject) -> Option<(StatusKey, PodStatus)> {
        read(object)
    }

    fn replace_all(&self, entries: HashMap<StatusKey, PodStatus>) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut *known, entries);
        let changed = known.iter().filter(|(key, status)| before.get(*key) != Some(*status));
        let changed: Vec<_> = changed.map(|(key, status)| (key.clone(), status.clone())).collect();
        drop(known);
        changed.into_iter().for_each(|(key, status)| self.notifier.send(key, status));
    }

    fn changed(&self, key: StatusKey, status: Option<PodStatus>) {
        match status {
            Some(status) => {
                self.lock().insert(key.clone(), status.clone());
                // Also if it looks the same: its object versions, which are not cached, may have
                // changed.
                self.notifier.send(key, status);
            }
            None => drop(self.lock().remove(&key)),
        }
    }

    fn set_live(&self, _: bool) {}
}

/// `None` for an object without a pod or a class.
pub(super) fn read(object: DynamicObject) -> Option<(StatusKey, PodStatus)> {
    let metadata = object.metadata;
    let namespace = Namespace::new(metadata.namespace?).ok()?;
    let name = ResourceName::new(metadata.name?).ok()?;
    let status = Status::deserialize(object.data.get("status")?).ok()?;
    // We make requests with these names, and the API server accepts any text there.
    let pod = ResourceName::new(status.pod_name).ok()?;
    let class = ResourceName::new(status.secret_provider_class_name).ok()?;
    let resource = resources::pod_statuses();
    let owners = metadata.owner_references.unwrap_or_default();
    let uid = owners.into_iter().find(|owner| owner.kind == "Pod").map(|owner| owner.uid).unwrap_or_default();
    let object = Owner {
        api_version: resource.api_version,
        kind: resource.kind,
        name: name.to_string(),
        uid: Uid::new(metadata.uid?).ok()?,
        controller: false,
    };
    let status = PodStatus {
        pod: PodRef { namespace: namespace.clone(), name: pod, uid },
        class: ClassRef { namespace: namespace.clone(), name: class },
        object,
    };
    Some(((namespace, name), status))
}
