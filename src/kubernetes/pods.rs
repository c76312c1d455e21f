//! A watch cache of this node's pods: identity, owners, and whether they are terminating.
//!
//! Watches metadata only; the server filters out pods that have completed. A driver without
//! rotation and mirror does not start the watch. On a miss, the pod is read with a GET.
//!
//! # Guarantees
//! A pod with the same name and another UID is another pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::core::DynamicObject;
use serde_json::Value;
use tokio::time::timeout;

use super::client::Connection;
use super::error::{GetError, RequestError};
use super::objects::Objects;
use super::pod_object;
use super::resources;
use super::watch::{self, Followed, Sink};
use crate::model::{Namespace, Pod, PodRef, ResourceName};
use crate::queue::notify::{Notifier, Subscription};

/// The deadline of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Namespace and name of a pod.
pub type PodKey = (Namespace, ResourceName);

/// The pods of this node. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub struct Pods {
    connection: Connection,
    node: String,
    known: Arc<Mutex<Known>>,
    notifier: Notifier<PodKey, ()>,
}

#[derive(Debug, Default)]
struct Known {
    pods: HashMap<PodKey, Pod>,
    /// Whether the watch works.
    live: bool,
}

impl Pods {
    /// An empty cache for the pods of `node`; [`Pods::follow`] fills it.
    pub fn new(connection: Connection, node: &str) -> Pods {
        Pods { connection, node: node.to_owned(), known: Arc::default(), notifier: Notifier::new() }
    }

    /// Keeps the cache up to date; never returns.
    pub async fn follow(self) {
        let followed = Followed {
            fields: Some(format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", self.node)),
            metadata_only: true,
            ..Followed::all(
                resources::pods(),
                "each pod is read when it is needed",
                "grant get, list and watch on pods (ClusterRole secretproviderrotation-role or secretprovidersyncing-role)",
            )
        };
        watch::follow(self.connection.clone(), followed, self).await;
    }

    /// The pod from the cache; `None` if it is not cached, or the watch does not work.
    pub fn known(&self, pod: &PodRef) -> Option<Pod> {
        let known = self.lock();
        known.pods.get(&key(pod)).filter(|found| known.live && is(found, pod)).cloned()
    }

    /// Whether the watch works and does not have the pod: it was deleted, has completed, or is not
    /// listed yet.
    pub fn is_gone(&self, pod: &PodRef) -> bool {
        let known = self.lock();
        known.live && !known.pods.get(&key(pod)).is_some_and(|found| is(found, pod))
    }

    /// The pod from the cache, with a GET on a miss; `None` if it does not exist or has completed.
    ///
    /// # Errors
    /// The GET failed.
    pub async fn find(&self, pod: &PodRef) -> Result<Option<Pod>, GetError> {
        match self.known(pod) {
            Some(found) => Ok(Some(found)),
            None => {
                let object = self.get(pod).await?;
                Ok(object.and_then(|object| pod_object::read(object.metadata)).filter(|found| is(found, pod)))
            }
        }
    }

    /// The pod's volumes of this driver, as volume and class; `None` if the pod does not exist or
    /// has completed. Always a GET: the watch has no specs.
    ///
    /// # Errors
    /// The GET failed.
    pub async fn volumes(&self, pod: &PodRef, driver: &str) -> Result<Option<BTreeMap<String, String>>, GetError> {
        let object = self.get(pod).await?;
        let object =
            object.filter(|object| pod_object::read(object.metadata.clone()).is_some_and(|found| is(&found, pod)));
        Ok(object.map(|object| pod_object::volumes(&object.data, driver)))
    }

    /// Subscribes to added, changed and removed pods.
    pub fn changes(&self) -> Subscription<PodKey, ()> {
        self.notifier.subscribe()
    }

    /// Reads the pod with this name; `None` if it does not exist or has completed.
    async fn get(&self, pod: &PodRef) -> Result<Option<DynamicObject>, GetError> {
        let objects = Objects::within(&self.connection, &pod.namespace, &resources::pods());
        match timeout(REQUEST_TIMEOUT, objects.get(&pod.name))
            .await
            .unwrap_or_else(|_| Err(RequestError::timeout(REQUEST_TIMEOUT)))
        {
            Ok(object) => Ok(Some(object).filter(|object| !has_completed(object))),
            Err(RequestError::NotFound) => Ok(None),
            Err(failure) => Err(GetError::of(format!("pod {pod}"), failure)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one insertion, removal or assignment, so that a panic leaves no half-made
        // entry.
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

    fn replace_all(&self, pods: HashMap<PodKey, Pod>) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut *known, Known { pods, live: true });
        let gone = before.pods.keys().filter(|key| !known.pods.contains_key(*key));
        let differs = |key: &&PodKey| known.pods.get(*key) != before.pods.get(*key);
        let changed: Vec<PodKey> = gone.chain(known.pods.keys().filter(differs)).cloned().collect();
        drop(known);
        changed.into_iter().for_each(|key| self.notifier.send(key, ()));
    }

    fn changed(&self, key: PodKey, pod: Option<Pod>) {
        let before = match &pod {
            Some(pod) => self.lock().pods.insert(key.clone(), pod.clone()),
            None => self.lock().pods.remove(&key),
        };
        // Most changes of a pod are changes of its status, which is not cached.
        if before != pod {
            self.notifier.send(key, ());
        }
    }

    fn set_live(&self, live: bool) {
        self.lock().live = live;
    }
}

fn key(pod: &PodRef) -> PodKey {
    (pod.namespace.clone(), pod.name.clone())
}

/// Whether `found` is the pod of the reference; one without a UID refers to any pod with the name.
fn is(found: &Pod, reference: &PodRef) -> bool {
    reference.uid.is_empty() || found.reference.uid == reference.uid
}

fn has_completed(object: &DynamicObject) -> bool {
    let phase = object.data.pointer("/status/phase").and_then(Value::as_str);
    matches!(phase, Some("Succeeded" | "Failed"))
}
