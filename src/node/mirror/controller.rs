//! The loop of the mirror: events about volumes, statuses, pods and classes in, reconciles out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::reconcile::{Reconciler, Report, Task};
use super::users::{Added, Users};
use super::volumes::Volumes;
use crate::compute::Compute;
use crate::kubernetes::{ClassCache, PodKey, PodStatus, Pods, Reports, SecretManager, Secrets, Statuses};
use crate::model::{ClassRef, PodRef};
use crate::node::volume::{Change, Changes, TargetPath};
use crate::queue::backoff::jitter;
use crate::queue::notify::Batch;
use crate::queue::warn_once::WarnOnce;
use crate::queue::work_queue::{Outcome, Trigger, WorkQueue};
use crate::secret::{FileOpener, Writer};
use crate::server::metrics::NodeMetrics;
use crate::server::telemetry::key;

/// The manager of the mirror's Secrets; the label is upstream's
/// (docs/reference/csi-driver.md#secret-label).
pub const MANAGER: SecretManager =
    SecretManager { field_manager: "keyvault-csi", label: ("secrets-store.csi.k8s.io/managed", "true") };

/// How many classes are reconciled at the same time.
pub(super) const WORKERS: usize = 4;
/// How long the loop sleeps if nothing is due; a notification wakes it.
const IDLE: Duration = Duration::from_secs(3600);

/// What the mirror reads from, writes to and reports to.
#[derive(Debug)]
pub struct Sources {
    /// SecretProviderClasses.
    pub classes: ClassCache,
    /// This node's pods; the caller runs [`Pods::follow`].
    pub pods: Pods,
    /// This node's status objects; the caller runs [`Statuses::follow`].
    pub statuses: Statuses,
    /// Secrets, with [`MANAGER`].
    pub secrets: Secrets,
    /// Notifications about changed volumes.
    pub changes: Changes,
    /// Events on pods.
    pub reports: Reports,
    /// Counts writes.
    pub metrics: NodeMetrics,
    /// Opens archives.
    pub compute: Compute,
    /// The driver's name in the volumes of pods.
    pub driver: String,
    /// How often an unchanged Secret is verified.
    pub interval: Duration,
}

/// Keeps Secrets up to date; never returns.
pub async fn run(sources: Sources) {
    let Sources { classes, pods, statuses, secrets, changes, reports, metrics, compute, driver, interval } = sources;
    let changed = (changes.subscribe(), statuses.changes(), pods.changes(), classes.changes());
    let (volumes, writer, opener) = (Volumes::default(), Writer::new(secrets), FileOpener::new(compute));
    let reconciler = Reconciler { classes, pods, statuses, writer, reports, metrics, opener, driver, volumes };
    let mut controller = Controller::new(reconciler, interval);
    info!(?interval, "Secrets are kept up to date with volumes");
    // Statuses that were listed before we subscribed.
    controller.add_all_statuses();
    let mut running: JoinSet<Report> = JoinSet::new();
    loop {
        let now = Instant::now();
        while running.len() < WORKERS
            && let Some(task) = controller.take(now)
        {
            running.spawn(reconcile(Arc::clone(&controller.reconciler), task));
        }
        let due = controller.queue.next_due().filter(|_| running.len() < WORKERS).unwrap_or(now + IDLE);
        tokio::select! {
            batch = changed.0.next() => controller.volumes_changed(batch),
            batch = changed.1.next() => controller.statuses_changed(batch),
            batch = changed.2.next() => controller.pods_changed(batch),
            batch = changed.3.next() => controller.classes_changed(batch),
            Some(finished) = running.join_next() => match finished {
                Ok(report) => controller.finished(report),
                Err(error) => warn!({ key::ERROR } = %error, "the result of a reconcile was lost"),
            },
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

/// One reconcile; a panic in it is a failure of this class only.
async fn reconcile(reconciler: Arc<Reconciler>, task: Task) -> Report {
    let class = task.class.clone();
    match tokio::spawn(async move { reconciler.reconcile(task).await }).await {
        Ok(report) => report,
        Err(_) => {
            let error = Some("the reconcile panicked; the driver's log has the cause".to_owned());
            Report { class, outcome: Outcome::Failed, gone: Vec::new(), error }
        }
    }
}

struct Controller {
    reconciler: Arc<Reconciler>,
    queue: WorkQueue<ClassRef>,
    users: Users,
    /// The failure of each class that was reported last.
    failures: HashMap<ClassRef, WarnOnce<String>>,
}

impl Controller {
    fn new(reconciler: Reconciler, interval: Duration) -> Controller {
        let (queue, users) = (WorkQueue::new(interval), Users::default());
        Controller { reconciler: Arc::new(reconciler), queue, users, failures: HashMap::new() }
    }

    fn take(&mut self, now: Instant) -> Option<Task> {
        let (class, trigger) = self.queue.take(now)?;
        let pods = self.users.pods(&class);
        Some(Task { class, pods, trigger })
    }

    fn volumes_changed(&mut self, batch: Batch<TargetPath, Change>) {
        for (_, Change { pod, class, target }) in batch.changed {
            if let Some(volume) = volume_name(&target) {
                self.reconciler.volumes.put(&pod.uid, &class.name, volume);
            }
            self.add_user(&class, &pod);
        }
        self.resync_if(batch.overflowed);
    }

    fn statuses_changed<K>(&mut self, batch: Batch<K, PodStatus>) {
        batch.changed.iter().for_each(|(_, status)| self.add_user(&status.class, &status.pod));
        self.resync_if(batch.overflowed);
    }

    fn add_all_statuses(&mut self) {
        let statuses = self.reconciler.statuses.all();
        statuses.iter().for_each(|status| self.add_user(&status.class, &status.pod));
    }

    fn add_user(&mut self, class: &ClassRef, pod: &PodRef) {
        // The volume is found by the UID.
        if pod.uid.is_empty() {
            return;
        }
        let trigger = match self.users.add(class, pod) {
            // The new pod may start only with its Secrets: verify that they exist.
            Added::New => Trigger::Resync,
            Added::Known => Trigger::Change,
            Added::LimitReached => {
                warn!(%pod, %class, "the pod's Secrets are not kept up to date: too many pods");
                return;
            }
        };
        self.queue.add(class, trigger, Instant::now());
    }

    fn pods_changed(&mut self, batch: Batch<PodKey, ()>) {
        for ((namespace, name), ()) in batch.changed {
            for (class, pod) in self.users.of_pod(&namespace, &name) {
                if self.reconciler.pods.is_gone(&pod) {
                    self.remove_user(&class, &pod);
                } else {
                    self.class_changed(&class);
                }
            }
        }
        self.resync_if(batch.overflowed);
    }

    fn classes_changed(&mut self, batch: Batch<ClassRef, ()>) {
        batch.changed.iter().for_each(|(class, ())| self.class_changed(class));
        self.resync_if(batch.overflowed);
    }

    fn class_changed(&mut self, class: &ClassRef) {
        if self.users.has_users(class) {
            self.queue.add(class, Trigger::Change, Instant::now());
        }
    }

    /// Makes every class due after changes were dropped.
    fn resync_if(&mut self, overflowed: bool) {
        if overflowed {
            self.add_all_statuses();
            self.queue.trigger_all(Trigger::Change, Instant::now());
        }
    }

    fn remove_user(&mut self, class: &ClassRef, pod: &PodRef) {
        self.users.remove(class, pod);
        self.reconciler.volumes.forget(&pod.uid);
        if !self.users.has_users(class) {
            self.queue.remove(class);
        }
        self.forget_if_removed(class);
    }

    fn forget_if_removed(&mut self, class: &ClassRef) {
        // While it runs, its reconcile may still add to the caches.
        if !self.queue.contains(class) {
            self.failures.remove(class);
            self.reconciler.writer.forget_class(class);
        }
    }

    fn finished(&mut self, report: Report) {
        let Report { class, outcome, gone, error } = report;
        gone.iter().for_each(|pod| self.remove_user(&class, pod));
        self.queue.finish(&class, outcome, Instant::now(), jitter());
        self.forget_if_removed(&class);
        if !self.queue.contains(&class) {
            return;
        }
        match error {
            None => {
                if self.failures.remove(&class).is_some() {
                    info!(%class, "the Secrets of the class are up to date again");
                }
            }
            Some(error) => {
                let failure = self.failures.entry(class.clone()).or_default();
                if failure.should_warn(error.clone(), Instant::now()) {
                    warn!(%class, { key::ERROR } = %error, "not all Secrets of the class are up to date");
                } else {
                    debug!(%class, { key::ERROR } = %error, "still not all Secrets of the class are up to date");
                }
            }
        }
    }
}

/// The volume's name in the kubelet's path: `…/<volume>/mount`.
fn volume_name(target: &TargetPath) -> Option<&str> {
    target.as_path().parent()?.file_name()?.to_str()
}
