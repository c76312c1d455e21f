//! The mirror: `secretObjects` of classes become Kubernetes Secrets, kept in step with the mounted files.
//!
//! Works from status objects and published volumes, so also without rotation, after a restart, and when it is switched on
//! later. Knows no vault. `pass` is one look at a class; this file decides when one is due.
//!
//! # Guarantees
//! Nothing is written when nothing changed, and a quiet node asks for the metadata of its Secrets once an interval. At most
//! [`AT_ONCE`] classes are looked at together. Secrets are never listed or watched.

mod agenda;
mod error;
mod files;
mod reconcile;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::agenda::{Agenda, Ending, Task};
use self::reconcile::{Reconciler, Report};
use self::volumes::Volumes;
use crate::compute::Compute;
use crate::kubernetes::{ClassCache, PodStatus, Pods, Reports, SecretManager, Secrets, Statuses};
use crate::model::{ClassRef, PodRef};
use crate::node::volume::{Change, Changes, TargetPath};
use crate::platform::process;
use crate::queue::notify::Batch;
use crate::secret::{FileOpener, Writer};
use crate::server::metrics::Metrics;
use crate::server::telemetry::key;

/// As which Secrets are written: the label is upstream's (docs/reference/csi-driver.md#secret-label).
pub const MANAGER: SecretManager =
    SecretManager { field_manager: "keyvault-csi", label: ("secrets-store.csi.k8s.io/managed", "true") };

/// How many classes are looked at together.
const AT_ONCE: usize = 4;
/// How long the loop sleeps when nothing is due; news wakes it.
const IDLE: Duration = Duration::from_secs(3600);

/// Where the mirror gets things from, and whom it tells.
#[derive(Debug)]
pub struct Sources {
    /// The classes.
    pub classes: ClassCache,
    /// This node's pods, followed by somebody.
    pub pods: Pods,
    /// This node's status objects, followed by somebody.
    pub statuses: Statuses,
    /// The Secrets.
    pub secrets: Secrets,
    /// Where volumes tell that they changed.
    pub changes: Changes,
    /// Who tells the cluster.
    pub reports: Reports,
    /// Where writes are counted.
    pub metrics: Metrics,
    /// Where archives are opened.
    pub compute: Compute,
    /// The driver's name, as pods' volumes have it.
    pub driver: String,
    /// How often Secrets that are as they should be are looked at.
    pub interval: Duration,
}

/// Keeps Secrets in step, for ever.
pub async fn run(sources: Sources) {
    let Sources { classes, pods, statuses, secrets, changes, reports, metrics, compute, driver, interval } = sources;
    let news = (changes.subscribe(), statuses.changes(), pods.changes(), classes.changes());
    let (volumes, writer) = (Volumes::default(), Writer::new(secrets));
    let opener = FileOpener::new(compute);
    let shared = Reconciler { classes, pods, statuses, writer, reports, metrics, opener, driver, volumes };
    let mut mirror = Mirror { shared: Arc::new(shared), agenda: Agenda::new(interval), told: HashMap::new() };
    info!(?interval, "Secrets are kept in step with volumes");
    // What was listed before we listened.
    mirror.shared.statuses.all().iter().for_each(|status| mirror.status(status));
    let mut running: JoinSet<Report> = JoinSet::new();
    loop {
        let now = Instant::now();
        while running.len() < AT_ONCE
            && let Some(task) = mirror.agenda.take(now)
        {
            let shared = Arc::clone(&mirror.shared);
            running.spawn(look(shared, task));
        }
        let due = mirror.agenda.next_due().filter(|_| running.len() < AT_ONCE).unwrap_or(now + IDLE);
        tokio::select! {
            batch = news.0.next() => mirror.volumes(batch),
            batch = news.1.next() => mirror.statuses(batch),
            batch = news.2.next() => mirror.pods(batch),
            batch = news.3.next() => mirror.classes(batch),
            Some(ended) = running.join_next() => match ended {
                Ok(report) => mirror.ended(report),
                Err(error) => warn!({ key::ERROR } = %error, "a look at Secrets was lost"),
            },
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

/// One look; a fault in it is a failure of its class and of nothing else.
async fn look(shared: Arc<Reconciler>, task: Task) -> Report {
    let class = task.class.clone();
    match tokio::spawn(async move { shared.reconcile(task).await }).await {
        Ok(report) => report,
        Err(_) => {
            let error = Some("the reconcile panicked; the driver's log has the cause".to_owned());
            Report { class, ending: Ending::Failed, gone: Vec::new(), error }
        }
    }
}

struct Mirror {
    shared: Arc<Reconciler>,
    agenda: Agenda,
    /// What was told last about each class that has trouble.
    told: HashMap<ClassRef, String>,
}

impl Mirror {
    fn volumes(&mut self, batch: Batch<TargetPath, Change>) {
        for (_, Change { pod, class, target }) in batch.changed {
            if let Some(volume) = volume_name(&target) {
                self.shared.volumes.put(&pod.uid, &class.name, volume);
            }
            self.uses(&class, &pod);
        }
        self.all(batch.more);
    }

    fn statuses<K>(&mut self, batch: Batch<K, PodStatus>) {
        batch.changed.iter().for_each(|(_, status)| self.status(status));
        self.all(batch.more);
    }

    fn status(&mut self, status: &PodStatus) {
        self.uses(&status.class, &status.pod);
    }

    fn uses(&mut self, class: &ClassRef, pod: &PodRef) {
        // Without the UID nobody knows whose volume it is.
        if !pod.uid.is_empty() && !self.agenda.uses(class, pod, Instant::now()) {
            warn!(%pod, %class, "the pod's Secrets are not kept in step: too many pods");
        }
    }

    fn pods(&mut self, batch: Batch<crate::kubernetes::PodKey, ()>) {
        for ((namespace, name), ()) in batch.changed {
            for (class, pod) in self.agenda.uses_of(&namespace, &name) {
                if self.shared.pods.is_gone(&pod) {
                    self.gone(&class, &pod);
                } else {
                    self.agenda.touch(&class, Instant::now());
                }
            }
        }
        self.all(batch.more);
    }

    fn classes(&mut self, batch: Batch<ClassRef, ()>) {
        batch.changed.iter().for_each(|(class, ())| self.agenda.touch(class, Instant::now()));
        self.all(batch.more);
    }

    /// More changed than was told.
    fn all(&mut self, more: bool) {
        if more {
            self.shared.statuses.all().iter().for_each(|status| self.status(status));
            self.agenda.touch_all(Instant::now());
        }
    }

    fn gone(&mut self, class: &ClassRef, pod: &PodRef) {
        self.agenda.gone(class, pod);
        self.shared.volumes.forget(&pod.uid);
        if !self.agenda.knows(class) {
            self.forget(class);
        }
    }

    /// No pod here uses the class any more.
    fn forget(&mut self, class: &ClassRef) {
        self.told.remove(class);
        self.shared.writer.forget_class(class);
    }

    fn ended(&mut self, report: Report) {
        let Report { class, ending, gone, error } = report;
        let trouble = error.unwrap_or_default();
        gone.iter().for_each(|pod| self.gone(&class, pod));
        self.agenda.ended(&class, &ending, Instant::now(), jitter());
        if !self.agenda.knows(&class) {
            self.forget(&class);
        } else if trouble.is_empty() {
            if self.told.remove(&class).is_some() {
                info!(%class, "the Secrets of the class are as they should be again");
            }
        } else if self.told.get(&class) == Some(&trouble) {
            debug!(%class, { key::ERROR } = %trouble, "still not all Secrets of the class are as they should be");
        } else {
            warn!(%class, { key::ERROR } = %trouble, "not all Secrets of the class are as they should be");
            self.told.insert(class, trouble);
        }
    }
}

/// Between 0 and 1; without random numbers in the middle.
fn jitter() -> f64 {
    process::random_number().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

/// The volume's name in the kubelet's path: `…/<volume>/mount`.
fn volume_name(target: &TargetPath) -> Option<&str> {
    target.as_path().parent()?.file_name()?.to_str()
}
