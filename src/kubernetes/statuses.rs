//! This node's SecretProviderClassPodStatus objects: which pod mounts which class.
//!
//! Found by the node's label, also those that upstream's driver wrote. Paths in them are not read: who may write a status
//! must not say which files of the node are looked at. Whoever needs statuses starts it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::DynamicObject;
use serde::Deserialize as _;

use super::client::Connection;
use super::names::{self, NODE_LABEL};
use super::pod_status::{self, Status};
use super::watch::{self, Followed, Sink};
use crate::model::{ClassRef, Namespace, Owner, PodRef, ResourceName, Uid};
use crate::queue::notify::{News, Subscription};

/// A pod that mounts a class, as a status object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodStatus {
    /// The pod; its UID is that of the object's owner.
    pub pod: PodRef,
    /// The class.
    pub class: ClassRef,
    /// The object itself, as an owner of others.
    pub object: Owner,
}

/// Namespace and name of a status object.
pub type StatusKey = (Namespace, ResourceName);

/// The statuses of this node. Cheap to clone; all clones share what is known.
#[derive(Debug, Clone)]
pub struct Statuses {
    connection: Connection,
    node: String,
    known: Arc<Mutex<HashMap<StatusKey, PodStatus>>>,
    news: News<StatusKey, PodStatus>,
}

impl Statuses {
    /// The statuses of the node of this name; nothing is known before [`Statuses::follow`] runs.
    pub fn new(connection: Connection, node: &str) -> Statuses {
        Statuses { connection, node: node.to_owned(), known: Arc::default(), news: News::new() }
    }

    /// Keeps what is known in step with the server, for ever.
    pub async fn follow(self) {
        let followed = Followed {
            labels: Some(format!("{NODE_LABEL}={}", names::node_label(&self.node))),
            ..Followed::all(
                pod_status::resource(),
                "volumes that were published before this driver started are not known",
                "grant list and watch on secretproviderclasspodstatuses of secrets-store.csi.x-k8s.io (ClusterRole secretprovidersyncing-role)",
            )
        };
        watch::follow(self.connection.clone(), followed, self).await;
    }

    /// Every status that is known.
    pub fn all(&self) -> Vec<PodStatus> {
        self.lock().values().cloned().collect()
    }

    /// The status object of this pod and class, as an owner of others.
    pub fn object(&self, pod: &PodRef, class: &ClassRef) -> Option<Owner> {
        let known = self.lock();
        let mut of = known.values().filter(|status| status.pod == *pod && status.class == *class);
        of.next().map(|status| status.object.clone())
    }

    /// Tells from now on which statuses came or changed.
    pub fn changes(&self) -> Subscription<StatusKey, PodStatus> {
        self.news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StatusKey, PodStatus>> {
        // Every change is one insertion, removal or assignment, so that a thread that died left whole entries behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Statuses {
    type Key = StatusKey;
    type Entry = PodStatus;

    fn read(&self, object: DynamicObject) -> Option<(StatusKey, PodStatus)> {
        read(object)
    }

    fn listed(&self, entries: HashMap<StatusKey, PodStatus>) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut *known, entries);
        let news = known.iter().filter(|(key, status)| before.get(*key) != Some(*status));
        let news: Vec<_> = news.map(|(key, status)| (key.clone(), status.clone())).collect();
        drop(known);
        news.into_iter().for_each(|(key, status)| self.news.tell(key, status));
    }

    fn changed(&self, key: StatusKey, status: Option<PodStatus>) {
        match status {
            Some(status) => {
                self.lock().insert(key.clone(), status.clone());
                // Also where it looks the same: its versions, which we do not keep, may have changed.
                self.news.tell(key, status);
            }
            None => drop(self.lock().remove(&key)),
        }
    }

    fn live(&self, _: bool) {}
}

/// `None` for an object that names no pod or no class.
pub(super) fn read(object: DynamicObject) -> Option<(StatusKey, PodStatus)> {
    let metadata = object.metadata;
    let namespace = Namespace::new(metadata.namespace?).ok()?;
    let name = ResourceName::new(metadata.name?).ok()?;
    let status = Status::deserialize(object.data.get("status")?).ok()?;
    // Its names lead to requests, and the API server takes any text there.
    let pod = ResourceName::new(status.pod_name).ok()?;
    let class = ResourceName::new(status.secret_provider_class_name).ok()?;
    let resource = pod_status::resource();
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
