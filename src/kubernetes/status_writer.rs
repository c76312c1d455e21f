//! Writes SecretProviderClassPodStatus objects in the background, until they are there.
//!
//! A volume is whole before this begins, so that a status that cannot be written is tried again instead of failing the
//! mount. Control comes from `reports`; `pod_status` decides what is written.
//!
//! # Guarantees
//! At most [`PENDING`] volumes wait at a time, [`AT_ONCE`] requests are under way. The newest state of a volume wins,
//! and an unpublished one is forgotten.

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use kube::core::DynamicObject;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::client::Connection;
use super::error::{Failure, OWNERS_GRANT, forbids_owners};
use super::names;
use super::objects::Objects;
use super::pod_status::{self, Step, Wanted};
use crate::model::ResourceName;

/// The most volumes whose status waits to be written; ten times what a node may run.
const PENDING: usize = 2048;
/// The most requests at once.
const AT_ONCE: usize = 4;
/// How long one try may take, with all its requests.
const TRY: Duration = Duration::from_secs(20);
/// The first and the longest pause between tries.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// How often one try may find that the object changed under its hands.
const ROUNDS: usize = 5;

/// Writes statuses. Cheap to clone; all clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct StatusWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connection: Connection,
    pending: Mutex<HashMap<String, Pending>>,
    requests: Semaphore,
    /// Whether the server was seen to drop our additions.
    prunes: AtomicBool,
    tasks: TaskTracker,
}

/// A status that is not written yet.
#[derive(Debug)]
struct Pending {
    wanted: Wanted,
    /// Which order this is; a newer one replaces it.
    order: u64,
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

    /// Orders that this be written.
    pub(super) fn write(&self, wanted: Wanted) {
        let target = wanted.target.clone();
        let mut pending = self.0.lock();
        if let Some(waiting) = pending.get_mut(&target) {
            (waiting.wanted, waiting.order) = (wanted, waiting.order + 1);
            return;
        }
        if pending.len() >= PENDING {
            warn!(pod = %wanted.pod, class = %wanted.class, waiting = PENDING,
                "the pod's status is not written: too many wait already");
            return;
        }
        pending.insert(target.clone(), Pending { wanted, order: 0 });
        drop(pending);
        let shared = Arc::clone(&self.0);
        self.0.tasks.spawn(async move { shared.write_until_done(&target).await });
    }

    /// Forgets a volume that is gone.
    pub(super) fn forget(&self, target: &str) {
        self.0.lock().remove(target);
    }

    /// Waits until nothing is waiting, or until `limit` has passed.
    pub(super) async fn settle(&self, limit: Duration) {
        self.0.tasks.close();
        if timeout(limit, self.0.tasks.wait()).await.is_err() {
            info!(waiting = self.0.lock().len(), "statuses are left unwritten");
        }
    }
}

impl Shared {
    async fn write_until_done(&self, target: &str) {
        let [first, longest] = PAUSES;
        let pauses = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest);
        let mut pauses = pauses.without_max_times().with_jitter().build();
        let mut told = None;
        loop {
            let Ok(permit) = self.requests.acquire().await else { return };
            let Some((wanted, order)) = self.next(target) else { return };
            // In memory only when its turn has come: a thousand may wait, and it is larger than all else that is kept of a volume.
            let outcome = Box::pin(timeout(TRY, self.write(&wanted))).await;
            drop(permit);
            let outcome = outcome.unwrap_or_else(|_| Err(Failure::timeout(TRY)));
            match outcome {
                Ok(()) => self.done(target, order),
                Err(failure) if failure.is_final() => {
                    warn!(pod = %wanted.pod, class = %wanted.class, err = %failure,
                        "the API server refuses the SecretProviderClassPodStatus; the volume is whole, and the request is not repeated");
                    self.done(target, order);
                }
                Err(failure) => {
                    // Texts of one kind differ from try to try.
                    if told == Some(discriminant(&failure)) {
                        debug!(pod = %wanted.pod, err = %failure, "still cannot write the pod's status");
                    } else {
                        warn!(pod = %wanted.pod, class = %wanted.class, err = %failure, advice = advice(&failure),
                            "cannot write the SecretProviderClassPodStatus; the volume is whole, and it is tried again");
                        told = Some(discriminant(&failure));
                    }
                    sleep(pauses.next().unwrap_or(longest).min(longest)).await;
                }
            }
        }
    }

    fn next(&self, target: &str) -> Option<(Wanted, u64)> {
        self.lock().get(target).map(|pending| (pending.wanted.clone(), pending.order))
    }

    /// Takes a written status from the queue, unless a newer one has taken its place.
    fn done(&self, target: &str, order: u64) {
        let mut pending = self.lock();
        if pending.get(target).is_some_and(|pending| pending.order == order) {
            pending.remove(target);
        }
    }

    /// One try: create, unless there should be one; where there is one already, read it and replace it if it differs.
    async fn write(&self, wanted: &Wanted) -> Result<(), Failure> {
        let objects = Objects::within(&self.connection, &wanted.pod.namespace, &pod_status::resource());
        let mut name = names::status_name(&wanted.pod, &wanted.class)?;
        let mut last = Failure::Conflict;
        for round in 0..ROUNDS {
            if round > 0 || !wanted.there {
                let object = wanted.new_object(&name);
                match self.sent(&object, objects.create(&object).await) {
                    Ok(()) => return Ok(()),
                    Err(Failure::AlreadyExists) => {}
                    Err(failure) => return Err(failure),
                }
            }
            match self.replace(&objects, wanted, &name).await {
                Ok(true) => return Ok(()),
                Ok(false) => name = names::distinct_status_name(&wanted.pod, &wanted.class)?,
                // It went or changed between two requests.
                Err(failure @ (Failure::Conflict | Failure::NotFound)) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// Brings an object that is there up to date; false when it belongs to somebody else.
    async fn replace(&self, objects: &Objects, wanted: &Wanted, name: &ResourceName) -> Result<bool, Failure> {
        let there = objects.get(name).await?;
        match wanted.step(there, self.prunes.load(Ordering::Relaxed)) {
            Step::Nothing => Ok(true),
            Step::Taken => Ok(false),
            Step::Wait => Err(Failure::Other("the one of the pod's predecessor is still being deleted".to_owned())),
            Step::Replace(object) => self.sent(&object, objects.replace(name, &object).await).map(|()| true),
        }
    }

    fn sent(&self, sent: &DynamicObject, answer: Result<DynamicObject, Failure>) -> Result<(), Failure> {
        let answered = answer?;
        self.prunes.store(pod_status::pruned(sent, &answered), Ordering::Relaxed);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        // Every change is one insertion, removal or assignment.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn advice(failure: &Failure) -> &'static str {
    match failure {
        Failure::Forbidden(message) if forbids_owners(message) => OWNERS_GRANT,
        Failure::Forbidden(_) => {
            "grant create, get and update on secretproviderclasspodstatuses of secrets-store.csi.x-k8s.io (ClusterRole secretproviderclasses-role)"
        }
        Failure::NoSuchKind => "install the CRDs (manifests/crds)",
        Failure::NotFound
        | Failure::AlreadyExists
        | Failure::Conflict
        | Failure::Expired
        | Failure::Refused(_)
        | Failure::Other(_) => "is the API server reachable from this node?",
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;

    fn size<F: Future>(_: impl FnOnce(&'static Shared, &'static str) -> F) -> usize {
        size_of::<F>()
    }

    /// A thousand wait at once when a node starts full.
    #[test]
    fn a_status_that_waits_is_small() {
        let size = size(Shared::write_until_done);
        assert!(size <= 1024, "{size} bytes");
    }
}
