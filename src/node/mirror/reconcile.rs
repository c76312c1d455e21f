//! Reconciles the Secrets of one class: from its pods on this node to the Secrets and their events.
//!
//! Reads class, pods and volumes each time. What a pod mounts comes from the pod, never from a
//! status object, and the files come from a mount in the kernel's mount table.
//!
//! # Flow
//! 1. Get the class, and stop if it asks for no Secrets.
//! 2. Find the pods that exist and are not terminating, with the volume and the owners of each.
//! 3. Read the newest of their volumes.
//! 4. Reconcile a Secret for each secretObject; a mistake in one affects no other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::error::{Error, Mistake};
use super::files::{self, Mounted};
use super::volumes::Volumes;
use crate::kubernetes::{ClassCache, ClassError, Pods, Reports, SecretRef, Statuses};
use crate::model::{Class, ClassRef, Namespace, Owner, PodRef, ResourceName, SecretObject, Uid};
use crate::queue::work_queue::{Outcome, Trigger};
use crate::secret::{self, DesiredSecret, FileOpener, Files, Freshness, Material, Owners, WriteOutcome, Writer};
use crate::server::metrics::NodeMetrics;
use crate::server::telemetry::key;

/// The annotation of a class whose Secrets stay after the last pod.
const RETAIN: &str = "keyvault-csi/retain";

/// On how many pods a failure becomes an event; all have the same one.
const EVENT_PODS: usize = 8;

/// A class to reconcile.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) class: ClassRef,
    /// The pods on this node that use it.
    pub(super) pods: BTreeSet<PodRef>,
    pub(super) trigger: Trigger,
}

/// The result of one reconcile.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) class: ClassRef,
    pub(super) outcome: Outcome,
    /// Pods that no longer exist, or do not mount the class.
    pub(super) gone: Vec<PodRef>,
    /// All failures in one text.
    pub(super) error: Option<String>,
}

/// Reconciles classes.
#[derive(Debug)]
pub(super) struct Reconciler {
    pub(super) classes: ClassCache,
    pub(super) pods: Pods,
    pub(super) statuses: Statuses,
    pub(super) writer: Writer,
    pub(super) reports: Reports,
    pub(super) metrics: NodeMetrics,
    pub(super) opener: FileOpener,
    pub(super) driver: String,
    pub(super) volumes: Volumes,
}

/// A pod that mounts the class.
struct MountingPod {
    uid: String,
    /// The name of the volume.
    volume: String,
    owners: Vec<Owner>,
}

/// What the Secrets of one class have in common.
struct Context<'a> {
    class: &'a Class,
    /// When the files were written.
    content_time: Timestamp,
    owners: Owners,
    freshness: Freshness,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, task: Task) -> Report {
        let mut gone = Vec::new();
        let (outcome, errors) = match self.reconcile_class(&task, &mut gone).await {
            Ok(reconciled) => reconciled,
            Err(error) => (Outcome::Failed, vec![error]),
        };
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if let Some(first) = errors.first() {
            let pods = task.pods.iter().filter(|pod| !gone.contains(pod)).take(EVENT_PODS);
            pods.for_each(|pod| self.reports.secret_failed(pod, &task.class, first.reason(), &text));
        }
        Report { class: task.class, outcome, gone, error: (!errors.is_empty()).then_some(text) }
    }

    async fn reconcile_class(&self, task: &Task, gone: &mut Vec<PodRef>) -> Result<(Outcome, Vec<Error>), Error> {
        let class = match self.classes.get(&task.class).await {
            Ok(class) => class,
            // If it is created again, the watch sends a change.
            Err(ClassError::NotFound { .. }) => return Ok((Outcome::Idle, Vec::new())),
            Err(error) => return Err(error.into()),
        };
        if class.secret_objects.is_empty() {
            return Ok((Outcome::Idle, Vec::new()));
        }
        let pods = self.pods(task, gone).await?;
        let volumes: Vec<_> = pods.iter().map(|pod| (pod.uid.clone(), pod.volume.clone())).collect();
        let names = secret::file_names(&class.secret_objects);
        let read = tokio::task::spawn_blocking(move || read_newest(&volumes, &names)).await;
        let read = read.unwrap_or_else(|_| Err(io::Error::other("the thread that read them panicked")));
        let Some((files, content_time)) = read.map_err(|source| Error::Files { class: task.class.clone(), source })?
        else {
            // Not mounted yet, or no longer: the next publish sends a change.
            return Ok((Outcome::Done, Vec::new()));
        };
        let owners = match class.annotations.get(RETAIN).is_some_and(|value| value == "true") {
            true => Owners::None,
            false => Owners::Shared(distinct(pods.into_iter().flat_map(|pod| pod.owners))),
        };
        let freshness = match task.trigger {
            Trigger::Change => Freshness::Cached,
            Trigger::Resync => Freshness::Verified,
        };
        let context = Context { class: &class, content_time, owners, freshness };
        let mut material = Material::new(class.reference.namespace.clone(), files, &self.opener);
        let mut errors = Vec::new();
        for index in 0..class.secret_objects.len() {
            errors.extend(self.reconcile_secret(&mut material, index, &context).await.err());
        }
        Ok((if errors.is_empty() { Outcome::Done } else { Outcome::Failed }, errors))
    }

    /// Reconciles the Secret of the class's secretObject at `index`.
    async fn reconcile_secret(
        &self,
        material: &mut Material<'_>,
        index: usize,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let started = tokio::time::Instant::now();
        let Context { class, owners, freshness, .. } = context;
        let object = &class.secret_objects[index];
        let provider = self.metrics.providers().label(&class.provider);
        let of_class = |error| match error {
            secret::Error::Mistake(mistake) => mistake_in(class, index, mistake.into()),
            source
            @ (secret::Error::Refused { .. } | secret::Error::Request { .. } | secret::Error::Compute { .. }) => {
                Error::Secret { class: class.reference.clone(), source }
            }
        };
        let count = |error: &Error| self.metrics.mirrored(provider, Err(error.reason()));
        let name = checked_name(&class.secret_objects, index);
        let name = name.map_err(|mistake| mistake_in(class, index, mistake)).inspect_err(count)?;
        let secret = SecretRef { namespace: class.reference.namespace.clone(), name };
        let inputs = material.inputs(&class.reference, object, owners);
        // Building the content may cost a key derivation.
        if let Some(outcome) = self.writer.up_to_date(&secret, *freshness, inputs).await.map_err(of_class)? {
            debug!(%secret, ?outcome, "Secret is up to date");
            return Ok(());
        }
        let content = material.build(object).await.map_err(of_class).inspect_err(count)?;
        let desired = DesiredSecret {
            reference: secret.clone(),
            class: class.reference.name.to_string(),
            content,
            content_time: context.content_time,
            owners: owners.clone(),
        };
        let abandoned = |other| self.is_abandoned(&secret.namespace, other, &secret.name);
        let outcome = self.writer.ensure(&desired, inputs, *freshness, abandoned).await;
        let outcome = outcome.map_err(of_class).inspect_err(count)?;
        match outcome {
            WriteOutcome::Unchanged | WriteOutcome::Newer => debug!(%secret, ?outcome, "Secret is up to date"),
            WriteOutcome::Created | WriteOutcome::Updated | WriteOutcome::AddedOwners => {
                self.metrics.mirrored(provider, Ok(started.elapsed()));
                info!(%secret, class = %class.reference, ?outcome, "Secret written");
            }
        }
        Ok(())
    }

    /// Whether a class does not exist, or no longer asks for this Secret.
    ///
    /// The name comes from an annotation of the Secret, which may contain any text.
    async fn is_abandoned(&self, namespace: &Namespace, class: String, secret: &str) -> bool {
        let Ok(name) = ResourceName::new(class) else { return true };
        let class = ClassRef { namespace: namespace.clone(), name };
        match self.classes.get(&class).await {
            Ok(class) => !class.secret_objects.iter().any(|object| object.secret_name.trim() == secret),
            Err(ClassError::NotFound { .. }) => true,
            Err(error) => {
                debug!(%class, { key::ERROR } = %error, "cannot find out whether the class still asks for the Secret");
                false
            }
        }
    }

    /// The pods that mount the class. Adds to `gone` those that do not exist or do not mount it.
    async fn pods(&self, task: &Task, gone: &mut Vec<PodRef>) -> Result<Vec<MountingPod>, Error> {
        let mut pods = Vec::new();
        for reference in &task.pods {
            let Some(pod) = self.pods.find(reference).await? else {
                gone.push(reference.clone());
                continue;
            };
            if pod.terminating {
                continue;
            }
            let Some(volume) = self.volume(reference, &task.class).await? else {
                warn!(pod = %reference, class = %task.class,
                    "a SecretProviderClassPodStatus says that the pod mounts the class, but the pod does not; the status is ignored");
                gone.push(reference.clone());
                continue;
            };
            let mut owners = pod.owners;
            if owners.iter().any(|owner| owner.controller) {
                owners.retain(|owner| owner.controller);
            }
            if owners.is_empty() {
                // A bare pod: its status object is deleted with it, and stands in for it as the
                // owner.
                match self.statuses.object(reference, &task.class) {
                    Some(object) => owners.push(object),
                    None => {
                        debug!(pod = %reference, class = %task.class, "waiting for the pod's status object");
                        continue;
                    }
                }
            }
            pods.push(MountingPod { uid: reference.uid.clone(), volume, owners });
        }
        Ok(pods)
    }

    /// The volume by which a pod mounts a class: as published on this node, else as in the pod's
    /// spec.
    async fn volume(&self, pod: &PodRef, class: &ClassRef) -> Result<Option<String>, Error> {
        if let Some(volume) = self.volumes.get(&pod.uid, &class.name) {
            return Ok(Some(volume));
        }
        let volumes: BTreeMap<String, String> = self.pods.volumes(pod, &self.driver).await?.unwrap_or_default();
        for (volume, class) in volumes {
            self.volumes.put(&pod.uid, &class, &volume);
        }
        Ok(self.volumes.get(&pod.uid, &class.name))
    }
}

pub(super) fn mistake_in(class: &Class, index: usize, mistake: Mistake) -> Error {
    let name = class.secret_objects[index].secret_name.trim().to_owned();
    Error::Mistake { class: class.reference.clone(), index, name, mistake }
}

/// The name of the Secret of the secretObject at `index`.
///
/// # Errors
/// The name is empty, invalid, or that of an earlier secretObject.
pub(super) fn checked_name(objects: &[SecretObject], index: usize) -> Result<ResourceName, Mistake> {
    let name = secret::secret_name(&objects[index])?;
    match objects[..index].iter().position(|earlier| earlier.secret_name.trim() == name.as_str()) {
        Some(first) => Err(Mistake::NameTwice(first)),
        None => Ok(name),
    }
}

/// Reads the volume with the newest content; `None` if none is mounted.
fn read_newest(volumes: &[(String, String)], names: &BTreeSet<String>) -> io::Result<Option<(Files, Timestamp)>> {
    let mounts = files::mounts()?;
    let mut found: Vec<Mounted> = Vec::new();
    for (uid, volume) in volumes {
        let Some(target) = files::target(&mounts, uid, volume) else { continue };
        found.extend(Mounted::open(target)?);
    }
    found.sort_by_key(|mounted| std::cmp::Reverse(mounted.written));
    for mounted in found {
        // `None` if the volume is being unpublished.
        if let Some(read) = mounted.read(names)? {
            return Ok(Some(read));
        }
    }
    Ok(None)
}

fn distinct(owners: impl Iterator<Item = Owner>) -> Vec<Owner> {
    let by_uid: BTreeMap<Uid, Owner> = owners.map(|owner| (owner.uid.clone(), owner)).collect();
    by_uid.into_values().collect()
}
