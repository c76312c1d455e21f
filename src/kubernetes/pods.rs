//! This node's pods as the API server has them, trimmed to who they are, who owns them and whether they are ending.
//!
//! Follows metadata only; pods that have ended are filtered out by the server. Whoever needs pods starts it, so that a
//! driver without rotation and mirror watches none. A pod that the watch does not have is asked for once, whole.
//!
//! # Guarantees
//! A pod of the same name and another UID is another pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::core::{ApiResource, DynamicObject};
use serde_json::Value;
use tokio::time::timeout;

use super::client::Connection;
use super::error::{Failure, GetError};
use super::objects::Objects;
use super::pod_object;
use super::watch::{self, Followed, Sink};
use crate::model::{Namespace, Pod, PodRef, ResourceName};
use crate::queue::notify::{News, Subscription};

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(10);

/// Namespace and name of a pod.
pub type PodKey = (Namespace, ResourceName);

/// The pods of this node. Cheap to clone; all clones share what is known.
#[derive(Debug, Clone)]
pub struct Pods {
    connection: Connection,
    node: String,
    known: Arc<Mutex<Known>>,
    news: News<PodKey, ()>,
}

#[derive(Debug, Default)]
struct Known {
    pods: HashMap<PodKey, Pod>,
    /// Whether `pods` follow the server at this moment.
    live: bool,
}

impl Pods {
    /// The pods of the node of this name; nothing is known before [`Pods::follow`] runs.
    pub fn new(connection: Connection, node: &str) -> Pods {
        Pods { connection, node: node.to_owned(), known: Arc::default(), news: News::new() }
    }

    /// Keeps what is known in step with the server, for ever.
    pub async fn follow(self) {
        let followed = Followed {
            fields: Some(format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", self.node)),
            metadata_only: true,
            ..Followed::all(
                resource(),
                "each pod is asked for when it is needed",
                "grant get, list and watch on pods (ClusterRole secretproviderrotation-role or secretprovidersyncing-role)",
            )
        };
        watch::follow(self.connection.clone(), followed, self).await;
    }

    /// The pod as the watch has it; `None` when it does not have it, or does not work.
    pub fn known(&self, pod: &PodRef) -> Option<Pod> {
        let known = self.lock();
        known.pods.get(&key(pod)).filter(|found| known.live && is(found, pod)).cloned()
    }

    /// Whether the watch works and does not have the pod: it is gone, has ended, or is not known yet.
    pub fn is_gone(&self, pod: &PodRef) -> bool {
        let known = self.lock();
        known.live && !known.pods.get(&key(pod)).is_some_and(|found| is(found, pod))
    }

    /// The pod as it is now, asked for where the watch does not have it; `None` when it is gone or has ended.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub async fn find(&self, pod: &PodRef) -> Result<Option<Pod>, GetError> {
        match self.known(pod) {
            Some(found) => Ok(Some(found)),
            None => Ok(self
                .look(pod)
                .await?
                .and_then(|object| pod_object::read(object.metadata))
                .filter(|found| is(found, pod))),
        }
    }

    /// The volumes of the pod that this driver fills, as volume and class; `None` when the pod is gone or has ended.
    ///
    /// Always asks the server: the watch has no specs.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub async fn volumes(&self, pod: &PodRef, driver: &str) -> Result<Option<BTreeMap<String, String>>, GetError> {
        let object = self.look(pod).await?;
        let object =
            object.filter(|object| pod_object::read(object.metadata.clone()).is_some_and(|found| is(&found, pod)));
        Ok(object.map(|object| pod_object::volumes(&object.data, driver)))
    }

    /// Tells from now on which pods came, changed, ended or went.
    pub fn changes(&self) -> Subscription<PodKey, ()> {
        self.news.subscribe()
    }

    /// The pod of this name that has not ended.
    async fn look(&self, pod: &PodRef) -> Result<Option<DynamicObject>, GetError> {
        let objects = Objects::within(&self.connection, &pod.namespace, &resource());
        match timeout(LOOK, objects.get(&pod.name)).await.unwrap_or_else(|_| Err(Failure::timeout(LOOK))) {
            Ok(object) => Ok(Some(object).filter(|object| !ended(object))),
            Err(Failure::NotFound) => Ok(None),
            Err(failure) => Err(GetError::of(format!("pod {pod}"), failure)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one insertion, removal or assignment, so that a thread that died left whole entries behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Pods {
    type Key = PodKey;
    type Entry = Pod;

    fn read(&self, object: DynamicObject) -> Option<(PodKey, Pod)> {
        let pod = pod_object::read(object.metadata)?;
        Some((key(&pod.reference), pod))
    }

    fn listed(&self, pods: HashMap<PodKey, Pod>) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut *known, Known { pods, live: true });
        let gone = before.pods.keys().filter(|key| !known.pods.contains_key(*key));
        let differs = |key: &&PodKey| known.pods.get(*key) != before.pods.get(*key);
        let changed: Vec<PodKey> = gone.chain(known.pods.keys().filter(differs)).cloned().collect();
        drop(known);
        changed.into_iter().for_each(|key| self.news.tell(key, ()));
    }

    fn changed(&self, key: PodKey, pod: Option<Pod>) {
        let before = match &pod {
            Some(pod) => self.lock().pods.insert(key.clone(), pod.clone()),
            None => self.lock().pods.remove(&key),
        };
        // Most changes of a pod are changes of its status.
        if before != pod {
            self.news.tell(key, ());
        }
    }

    fn live(&self, live: bool) {
        self.lock().live = live;
    }
}

fn key(pod: &PodRef) -> PodKey {
    (pod.namespace.clone(), pod.name.clone())
}

/// Whether this is the pod that is asked for; one without UID is asked for by name.
fn is(found: &Pod, asked: &PodRef) -> bool {
    asked.uid.is_empty() || found.reference.uid == asked.uid
}

fn ended(object: &DynamicObject) -> bool {
    let phase = object.data.pointer("/status/phase").and_then(Value::as_str);
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        plural: "pods".to_owned(),
    }
}
