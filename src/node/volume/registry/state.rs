//! The registry's state: the volumes with their credentials, fetch keys and last writes.
//!
//! Neither locks nor waits; [`Registry`](super::Registry) holds the lock around it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::locks::{Epoch, TargetLock};
use super::super::request::PublishRequest;
use super::super::target::TargetPath;
use super::credentials::{Credentials, Store};
use super::last_write::LastWrite;
use super::options::RotationOptions;
use super::pauses::Pauses;
use super::schedule::{self, Schedule};
use super::tracked::{FetchKey, Member, PodState, TrackedVolume, WorkItem};
use crate::model::{Class, ClassRef, Reason};
use crate::platform::clock;
use crate::queue::backoff::jitter;

/// The most volumes that are refreshed, many times the pods of a node.
const MAX_VOLUMES: usize = 4096;

/// Figures of all volumes, for the metrics.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) struct Summary {
    pub(in crate::node) volumes: usize,
    /// Volumes whose last refresh failed.
    pub(in crate::node) failing: usize,
    /// The age of the oldest among the last successful fetches of all volumes.
    pub(in crate::node) oldest_success: Option<Duration>,
    /// The earliest expiry among all objects, in Unix seconds.
    pub(in crate::node) next_expiration: Option<i64>,
}

pub(super) struct Entry {
    pub(super) volume: Arc<TrackedVolume>,
    pub(super) credentials: Credentials,
    /// `None` until a plan finds it.
    pub(super) key: Option<Arc<FetchKey>>,
    /// Whether the fetch is due as soon as a plan finds the key.
    pub(super) urgent: bool,
    /// `None` until the volume was read: after a restart, and after a write that failed.
    pub(super) last_write: Option<LastWrite>,
    /// Why the last refresh failed.
    pub(super) failing: Option<Reason>,
    /// Whether that failure could not be reported.
    pub(super) unreported: bool,
    /// Whether a refresh failed within the grace after a pause, and is repeated before a report.
    pub(super) excused: bool,
    pub(super) pod: PodState,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) volumes: HashMap<TargetPath, Entry>,
    /// The classes of the volumes; `None` if the last lookup failed.
    pub(super) classes: HashMap<ClassRef, Option<Arc<Class>>>,
    /// When the fetch of each key last succeeded, or when its first volume was registered. As time
    /// since boot, so that an age includes the time for which the machine was suspended.
    pub(super) successes: HashMap<Arc<FetchKey>, Duration>,
    pub(super) schedule: Schedule<WorkItem>,
    pub(super) store: Store,
    pub(super) pauses: Pauses,
    /// Whether the log has the warning about [`MAX_VOLUMES`].
    pub(super) full: bool,
}

impl Entry {
    pub(super) fn member(&self) -> Member {
        Member {
            volume: self.volume.clone(),
            credentials: self.credentials.clone(),
            last_write: self.last_write.clone(),
        }
    }
}

impl State {
    /// Records that the process runs now; logs a pause.
    pub(super) fn record_running(&mut self, options: &RotationOptions, now: Instant, since_boot: Duration) {
        if let Some(paused) = self.pauses.record_running(now, since_boot, options.pause()) {
            info!(?paused, grace = ?options.republish, "the process was paused; volumes wait for the kubelet's next call");
        }
    }

    /// Repeats a refresh that failed within the grace after a pause.
    pub(super) fn retry_excused(&mut self, target: &TargetPath, now: Instant) {
        if let Some(entry) = self.volumes.get_mut(target)
            && std::mem::take(&mut entry.excused)
        {
            let plan = || WorkItem::Plan(entry.volume.class.clone());
            let item = entry.key.clone().map_or_else(plan, WorkItem::Fetch);
            self.schedule.run_now(&item, now);
        }
    }

    /// The entry of exactly this volume, not of a later one on the same target.
    pub(super) fn entry(&mut self, volume: &Arc<TrackedVolume>) -> Option<&mut Entry> {
        self.volumes.get_mut(&volume.target).filter(|entry| Arc::ptr_eq(&entry.volume, volume))
    }

    /// Whether this is the class that was seen last.
    pub(super) fn is_current(&self, class: &Arc<Class>) -> bool {
        matches!(self.classes.get(&class.reference), Some(Some(seen)) if Arc::ptr_eq(seen, class))
    }

    /// The volumes of a class without a fetch key.
    pub(super) fn unplanned(&self, class: &ClassRef) -> impl Iterator<Item = &Entry> {
        self.volumes.values().filter(move |entry| entry.key.is_none() && entry.volume.class == *class)
    }

    /// Adds or replaces a volume; returns whether it is registered.
    pub(super) fn insert(
        &mut self,
        request: &PublishRequest,
        lock: &Arc<TargetLock>,
        epoch: Epoch,
        credentials: Credentials,
    ) -> bool {
        let Ok(class) = request.class.clone() else { return false };
        // Unpublished meanwhile: no later call would remove the entry.
        if lock.epoch() != epoch {
            return false;
        }
        if self.volumes.len() >= MAX_VOLUMES && !self.volumes.contains_key(&request.target) {
            if !std::mem::replace(&mut self.full, true) {
                warn!(volumes = MAX_VOLUMES, "too many volumes: further ones are not refreshed and keep their content");
            }
            return false;
        }
        let volume = Arc::new(TrackedVolume {
            target: request.target.clone(),
            pod: request.caller.pod.clone(),
            class,
            group: request.group,
            lock: lock.clone(),
            epoch,
        });
        self.classes.entry(volume.class.clone()).or_default();
        let entry = Entry {
            volume,
            credentials,
            key: None,
            urgent: false,
            last_write: None,
            failing: None,
            unreported: false,
            excused: false,
            pod: PodState::Unknown,
        };
        self.volumes.insert(request.target.clone(), entry);
        true
    }

    pub(super) fn remove(&mut self, target: &TargetPath) {
        let Some(entry) = self.volumes.remove(target) else { return };
        let class = &entry.volume.class;
        if self.volumes.values().all(|other| other.volume.class != *class) {
            self.classes.remove(class);
        }
    }

    /// Records a class; see [`Registry::update_class`](super::Registry::update_class).
    pub(super) fn update_class(
        &mut self,
        reference: &ClassRef,
        class: Option<&Arc<Class>>,
        now: Instant,
    ) -> Option<Arc<Class>> {
        // Without a volume, the class is not recorded.
        let seen = self.classes.get_mut(reference)?;
        if let (Some(seen), Some(class)) = (&seen, class)
            && seen.asks_as(class)
        {
            return Some(seen.clone());
        }
        *seen = class.cloned();
        let class = class?;
        if let Some(mistake) = class.rotation_interval_mistake() {
            warn!(class = %reference, %mistake, "the class's own interval is not used");
        }
        let mut plan = false;
        for entry in self.volumes.values_mut().filter(|entry| entry.volume.class == *reference) {
            // Volumes that were fetched for the old class, and volumes that failed for it.
            if entry.key.take().is_some() || entry.failing.is_some() {
                entry.urgent = true;
            }
            // A request for other objects must not name the versions of the old ones.
            if let Some(last) = &mut entry.last_write {
                last.held = None;
            }
            plan |= entry.urgent;
        }
        if !plan {
            return Some(class.clone());
        }
        self.schedule.run_now(&WorkItem::Plan(reference.clone()), now);
        None
    }

    /// The shared copy of a key.
    pub(super) fn key(&self, key: FetchKey) -> Arc<FetchKey> {
        self.successes.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone())
    }

    /// Assigns a fetch key to a volume, and schedules the fetch.
    pub(super) fn assign(&mut self, target: &TargetPath, key: &Arc<FetchKey>, options: &RotationOptions, now: Instant) {
        let interval = self.interval(&key.class, options);
        let Some(entry) = self.volumes.get_mut(target) else { return };
        entry.key = Some(key.clone());
        let item = WorkItem::Fetch(key.clone());
        self.successes.entry(key.clone()).or_insert_with(clock::since_boot);
        if std::mem::take(&mut entry.urgent) {
            self.schedule.run_now(&item, now);
        } else {
            self.schedule.add(&item, schedule::first(now, interval, jitter()));
        }
        if key.identity.is_of_volume() {
            // If an external provider is down, the fetches of all its volumes fail together.
            let class = self.classes.get(&key.class).and_then(Option::as_deref);
            self.schedule.isolate(&item, class.map_or("", |class| class.provider.as_str()));
        }
    }

    pub(super) fn interval(&self, class: &ClassRef, options: &RotationOptions) -> Duration {
        let class = self.classes.get(class).and_then(Option::as_deref);
        class.and_then(Class::rotation_interval).unwrap_or(options.interval)
    }
}
