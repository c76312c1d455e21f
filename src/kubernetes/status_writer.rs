//! Writes SecretProviderClassPodStatus objects in the background, with retries.
//!
//! The volume is complete before its status is written, so a failed write is retried and does not
//! fail the mount. `pod_status` decides what is written.
//!
//! # Guarantees
//! At most [`PENDING`] volumes wait, and [`AT_ONCE`] requests run at the same time. The newest
//! state of a volume wins, and an unpublished volume is dropped.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::core::DynamicObject;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::client::Connection;
use super::error::{OWNERS_GRANT, RequestError, forbids_owners};
use super::names;
use super::objects::Objects;
use super::pod_status::{self, DesiredStatus, StatusUpdate};
use super::resources;
use crate::model::ResourceName;
use crate::queue::backoff::{Backoff, jitter};
use crate::queue::warn_once::WarnOnce;

/// The most volumes that wait for their status; ten times the pods that a node may run.
const PENDING: usize = 2048;
/// The most requests at once.
const AT_ONCE: usize = 4;
/// The deadline of one try with all its requests.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);
/// Between tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
/// How often the object may change between our read and our write in one try.
const ATTEMPTS: usize = 5;

/// Writes statuses. Cheap to clone; all clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct StatusWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connection: Connection,
    pending: Mutex<HashMap<String, Pending>>,
    requests: Semaphore,
    /// Whether the server has dropped the fields that upstream's CRD lacks.
    prunes: AtomicBool,
    tasks: TaskTracker,
}

/// A status to write.
#[derive(Debug)]
struct Pending {
    desired: DesiredStatus,
    /// Increases with each newer state.
    generation: u64,
}

impl StatusWriter {
    pub(super) fn new(connection: Connection) -> StatusWriter {
        StatusWriter(Arc::new(Shared {
            connection,
            pending: Mutex::default(),
            requests: Semaphore::new(AT_ONCE),
            prunes: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        }))
    }

    /// Queues a status; it replaces one of the same volume that is not written yet.
    pub(super) fn write(&self, desired: DesiredStatus) {
        let target = desired.target.clone();
        let mut pending = self.0.lock();
        if let Some(waiting) = pending.get_mut(&target) {
            (waiting.desired, waiting.generation) = (desired, waiting.generation + 1);
            return;
        }
        if pending.len() >= PENDING {
            warn!(pod = %desired.pod, class = %desired.class, waiting = PENDING,
                "the pod's status is not written: too many are pending");
            return;
        }
        pending.insert(target.clone(), Pending { desired, generation: 0 });
        drop(pending);
        let shared = Arc::clone(&self.0);
        self.0.tasks.spawn(async move { shared.write_until_done(&target).await });
    }

    /// Drops the status of an unpublished volume.
    pub(super) fn forget(&self, target: &str) {
        self.0.lock().remove(target);
    }

    /// Waits until all statuses are written, at most for `limit`.
    pub(super) async fn settle(&self, limit: Duration) {
        self.0.tasks.close();
        if timeout(limit, self.0.tasks.wait()).await.is_err() {
            info!(waiting = self.0.lock().len(), "some statuses were not written before the shutdown");
        }
    }
}

impl Shared {
    async fn write_until_done(&self, target: &str) {
        let (mut backoff, mut failing) = (BACKOFF, WarnOnce::<Discriminant<RequestError>>::default());
        loop {
            let Ok(permit) = self.requests.acquire().await else { return };
            let Some((desired, generation)) = self.next(target) else { return };
            // Boxed: a thousand tasks may wait for the semaphore, and this future is large.
            let outcome = Box::pin(timeout(TRY_TIMEOUT, self.write(&desired))).await;
            drop(permit);
            let outcome = outcome.unwrap_or_else(|_| Err(RequestError::timeout(TRY_TIMEOUT)));
            match outcome {
                Ok(()) => self.done(target, generation),
                Err(failure) if failure.is_final() => {
                    warn!(pod = %desired.pod, class = %desired.class, err = %failure,
                        "the API server refuses the SecretProviderClassPodStatus; the volume is complete, and the request is not repeated");
                    self.done(target, generation);
                }
                Err(failure) => {
                    // By variant: the texts of one kind differ from try to try.
                    if failing.should_warn(discriminant(&failure), Instant::now()) {
                        warn!(pod = %desired.pod, class = %desired.class, err = %failure, advice = advice(&failure),
                            "cannot write the SecretProviderClassPodStatus; the volume is complete, and the write is retried");
                    } else {
                        debug!(pod = %desired.pod, err = %failure, "still cannot write the pod's status");
                    }
                    sleep(backoff.next(jitter())).await;
                }
            }
        }
    }

    fn next(&self, target: &str) -> Option<(DesiredStatus, u64)> {
        self.lock().get(target).map(|pending| (pending.desired.clone(), pending.generation))
    }

    /// Removes a written status from the queue, unless a newer one has replaced it.
    fn done(&self, target: &str, generation: u64) {
        let mut pending = self.lock();
        if pending.get(target).is_some_and(|pending| pending.generation == generation) {
            pending.remove(target);
        }
    }

    /// One try: create the object, unless it should exist; if it exists, read it and replace it if
    /// it differs.
    async fn write(&self, desired: &DesiredStatus) -> Result<(), RequestError> {
        let objects = Objects::within(&self.connection, &desired.pod.namespace, &resources::pod_statuses());
        let mut name = names::status_name(&desired.pod, &desired.class)?;
        let mut last = RequestError::Conflict;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || !desired.exists {
                let object = desired.new_object(&name);
                match self.sent(&object, objects.create(&object).await) {
                    Ok(()) => return Ok(()),
                    Err(RequestError::AlreadyExists) => {}
                    Err(failure) => return Err(failure),
                }
            }
            match self.replace(&objects, desired, &name).await {
                Ok(true) => return Ok(()),
                Ok(false) => name = names::distinct_status_name(&desired.pod, &desired.class)?,
                // The object was deleted or changed between two requests.
                Err(failure @ (RequestError::Conflict | RequestError::NotFound)) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// Updates an existing object; false if it belongs to another pod or class.
    async fn replace(
        &self,
        objects: &Objects,
        desired: &DesiredStatus,
        name: &ResourceName,
    ) -> Result<bool, RequestError> {
        let stored = objects.get(name).await?;
        match desired.update(stored, self.prunes.load(Ordering::Relaxed)) {
            StatusUpdate::None => Ok(true),
            StatusUpdate::NameTaken => Ok(false),
            StatusUpdate::Terminating => Err(RequestError::Other(
                "the object of the previous pod with this name is still being deleted".to_owned(),
            )),
            StatusUpdate::Replace(object) => self.sent(&object, objects.replace(name, &object).await).map(|()| true),
        }
    }

    fn sent(&self, sent: &DynamicObject, response: Result<DynamicObject, RequestError>) -> Result<(), RequestError> {
        let stored = response?;
        self.prunes.store(pod_status::pruned(sent, &stored), Ordering::Relaxed);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        // Every change is one insertion, removal or assignment, so that a panic leaves no half-made
        // entry.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn advice(failure: &RequestError) -> &'static str {
    let needs_owners = matches!(failure, RequestError::Forbidden(message) if forbids_owners(message));
    failure.advice(match needs_owners {
        true => OWNERS_GRANT,
        false => {
            "grant create, get and update on secretproviderclasspodstatuses of secrets-store.csi.x-k8s.io (ClusterRole secretproviderclasses-role)"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Shared;

    fn size<F: Future>(_: impl FnOnce(&'static Shared, &'static str) -> F) -> usize {
        size_of::<F>()
    }

    /// A thousand may wait when a full node starts.
    #[test]
    fn a_waiting_task_is_small() {
        let size = size(Shared::write_until_done);
        assert!(size <= 1024, "{size} bytes");
    }
}
