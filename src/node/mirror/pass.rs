//! One look at the Secrets of a class: from its pods on this node to what is written, and who is told.
//!
//! Everything is looked at anew: class, pods, volumes. What a pod mounts is taken from the pod, never from a status
//! object, and the files from a mount that the kernel tells of.
//!
//! # Flow
//! 1. The class, and whether it asks for Secrets at all.
//! 2. Of its pods those that are there and not ending, with the volume and the owners of each.
//! 3. The newest of their volumes is read.
//! 4. Each secretObject becomes a Secret; one that is wrong stops no other.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use tracing::{debug, warn};

use super::Shared;
use super::agenda::{Ending, Task};
use super::desired;
use super::error::Error;
use super::files::{self, Files, Mounted};
use super::material::Material;
use super::plan::{Owners, Wanted};
use super::writer::{Failure, Outcome};
use crate::kubernetes::{ClassError, SecretRef};
use crate::model::{ClassRef, Namespace, Owner, PodRef, ResourceName, Uid};
use crate::server::telemetry::key;

/// The annotation of a class whose Secrets stay when the last pod has gone.
const RETAIN: &str = "keyvault-csi/retain";

/// How many pods are told of a failure: each has the same.
const TOLD: usize = 8;

/// How a look ended.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) class: ClassRef,
    pub(super) ending: Ending,
    /// Pods that have gone, or do not use the class.
    pub(super) gone: Vec<PodRef>,
    /// What is wrong, for people; empty when nothing is.
    pub(super) trouble: String,
}

/// A pod that takes part: which volume it has and who owns it.
struct Part {
    pod: PodRef,
    volume: String,
    owners: Vec<Owner>,
}

/// What was read, and of when it is.
type Read = Option<(Files, Timestamp)>;

impl Shared {
    pub(super) async fn pass(&self, task: Task) -> Report {
        let mut gone = Vec::new();
        let (ending, failures) = match self.look(&task, &mut gone).await {
            Ok((ending, failures)) => (ending, failures),
            Err(error) => (Ending::Failed, vec![error]),
        };
        let trouble = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if let Some(first) = failures.first() {
            let pods = task.pods.iter().filter(|pod| !gone.contains(pod)).take(TOLD);
            pods.for_each(|pod| self.reports.secret_failed(pod, &task.class, first.reason(), &trouble));
        }
        Report { class: task.class, ending, gone, trouble }
    }

    async fn look(&self, task: &Task, gone: &mut Vec<PodRef>) -> Result<(Ending, Vec<Error>), Error> {
        let class = match self.classes.get(&task.class).await {
            Ok(class) => class,
            // It may come back, and then the watch says so.
            Err(ClassError::NotFound { .. }) => return Ok((Ending::NothingToDo, Vec::new())),
            Err(error) => return Err(error.into()),
        };
        if class.secret_objects.is_empty() {
            return Ok((Ending::NothingToDo, Vec::new()));
        }
        let parts = self.parts(task, gone).await?;
        let volumes: Vec<_> = parts.iter().map(|part| (part.pod.uid.clone(), part.volume.clone())).collect();
        let wanted = desired::files_of(&class);
        let read = tokio::task::spawn_blocking(move || newest(&volumes, &wanted)).await;
        let read = read.unwrap_or_else(|_| Err(io::Error::other("the thread that read them died")));
        let Some((files, written)) = read.map_err(|source| Error::Files { class: task.class.clone(), source })? else {
            // Not mounted yet, or not any more: news will come.
            return Ok((Ending::Done, Vec::new()));
        };
        let owners = match class.annotations.get(RETAIN).is_some_and(|value| value == "true") {
            true => Owners::Nobody,
            false => Owners::These(distinct(parts.into_iter().flat_map(|part| part.owners))),
        };
        let mut material = Material::new(class, files, &self.reader);
        let mut failures = Vec::new();
        for at in 0..material.class().secret_objects.len() {
            if let Err(error) = self.one(&mut material, at, written, owners.clone(), task).await {
                failures.push(error);
            }
        }
        Ok((if failures.is_empty() { Ending::Done } else { Ending::Failed }, failures))
    }

    async fn one(
        &self,
        material: &mut Material<'_>,
        at: usize,
        written: Timestamp,
        owners: Owners,
        task: &Task,
    ) -> Result<(), Error> {
        let started = tokio::time::Instant::now();
        let class = material.class().clone();
        let provider = self.metrics.provider(&class.provider);
        let inputs = material.inputs(at, &owners);
        let namespace = &class.reference.namespace;
        let name = class.secret_objects.get(at).map(desired::name_of).unwrap_or_default();
        // A name that no Secret can have is a mistake, which `desired` reports.
        if let Ok(name) = ResourceName::new(name) {
            let reference = SecretRef { namespace: namespace.clone(), name };
            let known = self.writer.known(&reference, task.look, inputs).await;
            let write = |source| Error::Write { class: class.reference.clone(), secret: reference.clone(), source };
            // What was made of the same is not made again: it may cost a key derivation.
            if let Some(outcome) = known.map_err(write)? {
                debug!(secret = %reference, ?outcome, "Secret looked at");
                return Ok(());
            }
        }
        let secret = material.desired(at).await;
        let secret = secret.inspect_err(|error| self.metrics.mirrored(provider, Err(error.reason())))?;
        let reference = SecretRef { namespace: namespace.clone(), name: secret.name.clone() };
        let wanted = Wanted { at: reference.clone(), class: class.reference.name.to_string(), secret, written, owners };
        let abandoned = |other| self.abandoned(namespace, other, &reference.name);
        let outcome = self.writer.ensure(&wanted, inputs, task.look, abandoned).await;
        let outcome = outcome.map_err(|failure| {
            let (class, secret) = (class.reference.clone(), reference.clone());
            match failure {
                Failure::Refusal(refusal) => Error::LeftAlone { class, secret, refusal },
                Failure::Secret(source) => Error::Write { class, secret, source },
            }
        });
        let outcome = outcome.inspect_err(|error| self.metrics.mirrored(provider, Err(error.reason())))?;
        match outcome {
            Outcome::Unchanged | Outcome::Newer => debug!(secret = %reference, ?outcome, "Secret looked at"),
            Outcome::Created | Outcome::Updated | Outcome::AddedOwners => {
                self.metrics.mirrored(provider, Ok(started.elapsed()));
                tracing::info!(secret = %reference, class = %class.reference, ?outcome, "Secret written");
            }
        }
        Ok(())
    }

    /// Whether a class is gone, or asks for this Secret no more.
    ///
    /// The class's name stands in an annotation of the Secret, which may hold any text.
    async fn abandoned(&self, namespace: &Namespace, class: String, secret: &str) -> bool {
        let Ok(name) = ResourceName::new(class) else { return true };
        let class = ClassRef { namespace: namespace.clone(), name };
        match self.classes.get(&class).await {
            Ok(class) => !class.secret_objects.iter().any(|object| desired::name_of(object) == secret),
            Err(ClassError::NotFound { .. }) => true,
            Err(error) => {
                debug!(%class, { key::ERROR } = %error, "cannot tell whether the class still wants the Secret");
                false
            }
        }
    }

    /// The pods that take part; those that have gone or do not use the class are put aside.
    async fn parts(&self, task: &Task, gone: &mut Vec<PodRef>) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        for reference in &task.pods {
            let Some(pod) = self.pods.find(reference).await? else {
                gone.push(reference.clone());
                continue;
            };
            if pod.ending {
                continue;
            }
            let Some(volume) = self.volume(reference, &task.class).await? else {
                warn!(pod = %reference, class = %task.class,
                    "a status object says that the pod mounts the class, but the pod does not; it is not believed");
                gone.push(reference.clone());
                continue;
            };
            let mut owners = pod.owners;
            if owners.iter().any(|owner| owner.controller) {
                owners.retain(|owner| owner.controller);
            }
            if owners.is_empty() {
                // A bare pod: its status object goes when it goes. Until that is there, the pod takes no part.
                match self.statuses.object(reference, &task.class) {
                    Some(object) => owners.push(object),
                    None => {
                        debug!(pod = %reference, class = %task.class, "waiting for the pod's status object");
                        continue;
                    }
                }
            }
            parts.push(Part { pod: reference.clone(), volume, owners });
        }
        Ok(parts)
    }

    /// The volume through which a pod mounts a class: as it was published here, else as the pod says.
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

/// Reads the volume whose content is the newest.
fn newest(volumes: &[(String, String)], wanted: &std::collections::BTreeSet<String>) -> io::Result<Read> {
    let mounts = files::mounts()?;
    let mut found: Vec<Mounted> = Vec::new();
    for (uid, volume) in volumes {
        let Some(target) = files::target(&mounts, uid, volume) else { continue };
        found.extend(Mounted::open(target)?);
    }
    found.sort_by_key(|mounted| std::cmp::Reverse(mounted.written));
    for mounted in found {
        // One that is being unpublished at this moment is passed over.
        if let Some(read) = mounted.read(wanted)? {
            return Ok(Some(read));
        }
    }
    Ok(None)
}

fn distinct(owners: impl Iterator<Item = Owner>) -> Vec<Owner> {
    let by_uid: BTreeMap<Uid, Owner> = owners.map(|owner| (owner.uid.clone(), owner)).collect();
    by_uid.into_values().collect()
}
