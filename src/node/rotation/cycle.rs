//! One work item: plan the fetches of a class, or fetch once and refresh all volumes of the key.
//!
//! The registry decides what to do and records the outcome; no lock is held in between. Reports to
//! the cluster only what changed.
//!
//! # Guarantees
//! A failure changes no file. A payload that was fetched for an earlier version of the class is
//! never written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::held_files::VolumeFiles;
use crate::backend::{FetchIdentity, Held, HeldFiles};
use crate::model::{Class, ClassRef, Fetch, Payload, Purpose, Reason};
use crate::node::volume::registry::{FetchKey, LastWrite, Member, Registry, TrackedVolume, WorkItem};
use crate::node::volume::{Change, Error, Group, Refreshed, Volumes, check};
use crate::server::metrics::NodeMetrics;

/// The limits of a cycle's deadline, which is otherwise the interval.
const DEADLINES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(110)];

/// How many volumes are written at a time.
const WRITES_AT_ONCE: usize = 2;

/// How many credentials of one identity a fetch tries if they are refused; their tokens differ.
const MAX_CREDENTIALS: usize = 3;

/// One run of a work item.
pub(super) struct Cycle {
    volumes: Volumes,
    registry: Arc<Registry>,
    metrics: NodeMetrics,
    item: WorkItem,
    started: Instant,
}

/// The result of a fetch with the credentials of one volume.
enum FetchOutcome {
    Fetched(Payload),
    /// The credentials are now those of another identity, so they cannot be used for this key.
    OtherIdentity,
    Failed(Error),
}

impl Cycle {
    pub(super) fn new(volumes: Volumes, registry: Arc<Registry>, metrics: NodeMetrics, item: WorkItem) -> Cycle {
        Cycle { volumes, registry, metrics, item, started: Instant::now() }
    }

    pub(super) async fn run(&self) {
        match &self.item {
            WorkItem::Plan(class) => self.plan(class).await,
            WorkItem::Fetch(key) => self.fetch(key).await,
        }
    }

    /// Finds the identity of each volume of a class that has no fetch key.
    async fn plan(&self, reference: &ClassRef) {
        let deadline = Instant::now() + DEADLINES[0];
        let class = match self.class(reference, deadline).await {
            Ok(Some(class)) => class,
            Ok(None) => return,
            Err(error) => return self.record_failure("", &volumes(&self.registry.unplanned(reference)), &error),
        };
        let (mut planned, mut overloaded) = (Vec::new(), false);
        for member in self.registry.unplanned(reference) {
            match self.identity(&class, &member, deadline).await {
                Ok(identity) => planned.push((member, identity)),
                // Its certificate waits behind others of the namespace. The next plan finds those
                // that were read meanwhile.
                Err(error) if error.reason() == Reason::Overloaded => overloaded = true,
                Err(error) => self.record_failure(&class.provider, &[member.volume], &error),
            }
            // A hundred volumes in a row must not block other tasks.
            tokio::task::yield_now().await;
        }
        // All at once: a fetch that started for the first volume would be repeated for the others.
        self.registry.plan(&class, &planned);
        if overloaded {
            self.registry.rerun_plan(reference);
        }
    }

    async fn identity(&self, class: &Class, member: &Member, deadline: Instant) -> Result<FetchIdentity, Error> {
        let caller = member.credentials.caller(&member.volume.pod);
        let (target, purpose) = (member.volume.target.as_str(), Purpose::Refresh);
        let fetch = Fetch { class, caller: &caller, target, purpose, deadline };
        Ok(self.volumes.backends.prepare(fetch, Held::default()).await?.identity())
    }

    /// Fetches once, for all volumes of the key.
    async fn fetch(&self, key: &Arc<FetchKey>) {
        let [least, most] = DEADLINES;
        let deadline = self.started + self.registry.interval(&key.class).clamp(least, most);
        let members = self.registry.members(key);
        if members.is_empty() {
            return;
        }
        let class = match self.class(&key.class, deadline).await {
            Ok(Some(class)) => class,
            Ok(None) => return,
            Err(error) => return self.record_failure("", &volumes(&members), &error),
        };
        match self.fetch_with_any(key, &class, &members, deadline).await {
            Ok(Some(payload)) => {
                self.registry.record_success(key);
                self.write_all(key, &class, members, Arc::new(payload)).await;
                self.metrics.rotation().refresh_took(self.started.elapsed());
            }
            Ok(None) => {}
            Err(error) => self.record_failure(&class.provider, &volumes(&members), &error),
        }
    }

    /// The current class; `None` if its volumes have to be planned first.
    async fn class(&self, reference: &ClassRef, deadline: Instant) -> Result<Option<Arc<Class>>, Error> {
        let looked = timeout_at(deadline, self.volumes.classes.get(reference)).await;
        let class = match looked {
            Ok(looked) => looked.map_err(Error::from),
            Err(_) => Err(Error::ClassSlow(reference.clone())),
        };
        let class = class.and_then(|class| check(&class).map(|()| class));
        match class {
            Ok(class) => Ok(self.registry.update_class(reference, Some(class))),
            Err(error) => {
                self.registry.update_class(reference, None);
                Err(error)
            }
        }
    }

    /// Fetches with the freshest credentials; if they are refused, with others of the identity.
    async fn fetch_with_any(
        &self,
        key: &Arc<FetchKey>,
        class: &Class,
        members: &[Member],
        deadline: Instant,
    ) -> Result<Option<Payload>, Error> {
        let (mut last, mut tried): (_, Vec<&Member>) = (None, Vec::new());
        for member in members {
            let same_tokens = |tried: &&Member| tried.credentials.has_tokens_of(&member.credentials);
            if tried.len() >= MAX_CREDENTIALS || tried.iter().any(same_tokens) {
                continue;
            }
            tried.push(member);
            match self.fetch_with(key, class, member, deadline).await {
                FetchOutcome::Fetched(payload) => return Ok(Some(payload)),
                FetchOutcome::OtherIdentity => self.registry.unplan(&member.volume),
                FetchOutcome::Failed(error) if is_about_credentials(error.reason()) => last = Some(error),
                FetchOutcome::Failed(error) => return Err(error),
            }
        }
        last.map_or(Ok(None), Err)
    }

    async fn fetch_with(&self, key: &FetchKey, class: &Class, member: &Member, deadline: Instant) -> FetchOutcome {
        let live = member.credentials.is_live();
        let lapsed = || {
            let since = member.credentials.received.elapsed();
            FetchOutcome::Failed(Error::CredentialsLapsed { class: class.reference.clone(), since })
        };
        // An external provider may take a pod without credentials for another identity.
        if !live && key.identity.is_of_volume() {
            return lapsed();
        }
        let caller = member.credentials.caller(&member.volume.pod);
        let versions = member.last_write.as_ref().and_then(|last| last.held.as_deref()).unwrap_or_default();
        let files = VolumeFiles::of(&member.volume, member.last_write.as_ref());
        let files = files.as_ref().map(|files| files as &dyn HeldFiles);
        let (target, purpose) = (member.volume.target.as_str(), Purpose::Refresh);
        let fetch = Fetch { class, caller: &caller, target, purpose, deadline };
        let prepared = match self.volumes.backends.prepare(fetch, Held { versions, files }).await {
            Ok(prepared) => prepared,
            // The cause is the missing renewal, not a mistake of the pod.
            Err(_) if !live => return lapsed(),
            Err(error) => return FetchOutcome::Failed(error.into()),
        };
        if prepared.identity() != key.identity {
            return FetchOutcome::OtherIdentity;
        }
        match prepared.payload().await {
            Ok(payload) => FetchOutcome::Fetched(payload),
            Err(error) => FetchOutcome::Failed(error.into()),
        }
    }

    /// Writes the payload to the volumes that hold something else.
    async fn write_all(&self, key: &Arc<FetchKey>, class: &Arc<Class>, members: Vec<Member>, payload: Arc<Payload>) {
        let mut desired: HashMap<Option<Group>, LastWrite> = HashMap::new();
        for Member { volume, .. } in &members {
            let group = volume.group;
            desired.entry(group).or_insert_with(|| LastWrite::of(&payload, group, &key.identity));
        }
        let writes = members.into_iter().filter_map(|member| {
            let desired = desired.get(&member.volume.group)?.clone();
            Some((member, desired))
        });
        let writes = futures::stream::iter(writes).for_each_concurrent(WRITES_AT_ONCE, |(member, desired)| {
            let payload = payload.clone();
            async move {
                // As late as possible: class or volume may have changed meanwhile.
                if self.registry.is_current(&member.volume, key, class) {
                    self.write(&class.provider, &member, desired, payload).await;
                }
            }
        });
        writes.await;
    }

    async fn write(&self, provider: &str, member: &Member, desired: LastWrite, payload: Arc<Payload>) {
        let (volume, before) = (&member.volume, &member.last_write);
        let done = match before {
            Some(before) if before.content == desired.content => Ok(Refreshed::Unchanged),
            Some(_) | None => self.volumes.refresh(volume, payload.clone()).await,
        };
        let versions_changed = before.as_ref().is_none_or(|before| before.versions != desired.versions);
        match done {
            Ok(Refreshed::Gone) => {
                debug!(target = %volume.target, "a volume is gone; nothing is written");
                self.registry.remove_gone(volume);
                return;
            }
            Ok(refreshed) => {
                let rotated = refreshed == Refreshed::Changed;
                self.metrics.rotation().refreshed(self.metrics.providers().label(provider), rotated);
                self.registry.record_write(volume, Some(desired));
                if rotated {
                    let (pod, class, target) = (volume.pod.clone(), volume.class.clone(), volume.target.clone());
                    self.volumes.changes.send(Change { pod, class, target });
                    info!(pod = %volume.pod, target = %volume.target, "volume refreshed");
                }
            }
            Err(error) => {
                // The next write reads the volume first.
                self.registry.record_write(volume, None);
                return self.record_failure(provider, std::slice::from_ref(volume), &error);
            }
        }
        let recovered = self.registry.record_outcome(volume, None);
        if (recovered || versions_changed)
            && let Some(reports) = &self.volumes.reports
        {
            reports.refreshed(&volume.pod, &volume.class, &volume.target.to_string(), payload.versions());
        }
    }

    /// Counts a failure, and reports it for the volumes that did not fail for this reason before.
    fn record_failure(&self, provider: &str, volumes: &[Arc<TrackedVolume>], error: &Error) {
        let (reason, text) = (error.reason(), error.to_string());
        let provider = self.metrics.providers().label(provider);
        let mut reported: Vec<&TrackedVolume> = Vec::new();
        for volume in volumes {
            if self.registry.excuse(&self.item, self.started, volume) {
                debug!(target = %volume.target, %reason, err = %text, "a refresh failed after a pause; it is tried again");
                continue;
            }
            self.metrics.refresh_failed(provider, error.cause());
            // Another operation holds the target; the next cycle follows soon enough.
            if reason == Reason::Busy || !self.registry.record_outcome(volume, Some(reason)) {
                continue;
            }
            reported.push(volume);
            let target = volume.target.to_string();
            if let Some(reports) = &self.volumes.reports
                && !reports.refresh_failed(&volume.pod, &volume.class, &target, reason, &text)
            {
                self.registry.record_unreported(volume);
            }
        }
        if let Some(volume) = reported.last() {
            warn!(class = %volume.class, pod = %volume.pod, volumes = reported.len(), %reason, err = %text,
                "volumes cannot be refreshed; they keep what they hold");
        }
    }
}

fn volumes(members: &[Member]) -> Vec<Arc<TrackedVolume>> {
    members.iter().map(|member| member.volume.clone()).collect()
}

/// Whether another token of the same identity may succeed (docs/decisions.md#d6).
fn is_about_credentials(reason: Reason) -> bool {
    use Reason::{CredentialsMissing, CredentialsRejected, Forbidden, Unauthorized};
    matches!(reason, CredentialsMissing | CredentialsRejected | Unauthorized | Forbidden)
}
