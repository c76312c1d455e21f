//! What is known of the volumes that are refreshed, without a lock and without a wait.
//!
//! Knows which volumes there are, what the kubelet brought for each, which fetch refreshes it, and when that is due. `registry`
//! has the lock around it and is what others call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::locks::{Epoch, Target};
use super::super::request::PublishRequest;
use super::super::target::TargetPath;
use super::credentials::{Feed, Store};
use super::last_write::LastWrite;
use super::options::RotationOptions;
use super::pauses::Pauses;
use super::schedule::{self, Schedule};
use super::tracked::{FetchKey, Member, PodSeen, TrackedVolume, WorkItem};
use crate::model::{Class, ClassRef, Reason};
use crate::platform::{clock, process};

/// The most volumes that are refreshed; many times what a node may run.
const MOST: usize = 4096;

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
    pub(super) feed: Feed,
    /// The fetch that refreshes it; `None` until that is found out.
    pub(super) key: Option<Arc<FetchKey>>,
    /// Whether it is to be refreshed as soon as that is found out.
    pub(super) urgent: bool,
    /// `None` until the disk was read: after a restart, and after a write that failed.
    pub(super) last_write: Option<LastWrite>,
    /// Why it cannot be refreshed.
    pub(super) failing: Option<Reason>,
    /// Whether somebody still has to be told that.
    pub(super) untold: bool,
    /// Whether it could not be refreshed after a pause of the process, and has to be tried again before that is told.
    pub(super) excused: bool,
    pub(super) pod: PodSeen,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) volumes: HashMap<TargetPath, Entry>,
    /// The classes of the volumes as they were seen last; `None` when the last look failed.
    pub(super) classes: HashMap<ClassRef, Option<Arc<Class>>>,
    /// When the fetch of each key last succeeded, or when its first volume was registered, as time since boot: a
    /// suspended machine must not make a fetch look younger.
    pub(super) successes: HashMap<Arc<FetchKey>, Duration>,
    pub(super) schedule: Schedule<WorkItem>,
    pub(super) store: Store,
    pub(super) pauses: Pauses,
    /// Whether it was told that there are too many volumes.
    pub(super) full: bool,
}

impl Entry {
    pub(super) fn member(&self) -> Member {
        Member { volume: self.volume.clone(), feed: self.feed.clone(), last_write: self.last_write.clone() }
    }
}

impl State {
    /// Notes that the process runs, and says so where it did not for a while.
    pub(super) fn running(&mut self, options: &RotationOptions, now: Instant, since_boot: Duration) {
        if let Some(paused) = self.pauses.running(now, since_boot, options.pause()) {
            info!(?paused, grace = ?options.republish, "the process was paused; volumes wait for the kubelet's next call");
        }
    }

    /// Has a volume refreshed now that failed after a pause of the process.
    pub(super) fn try_again(&mut self, target: &TargetPath, now: Instant) {
        if let Some(entry) = self.volumes.get_mut(target)
            && std::mem::take(&mut entry.excused)
        {
            let plan = || WorkItem::Plan(entry.volume.class.clone());
            let unit = entry.key.clone().map_or_else(plan, WorkItem::Fetch);
            self.schedule.hurry(&unit, now);
        }
    }

    /// The entry of exactly this volume.
    pub(super) fn entry(&mut self, volume: &Arc<TrackedVolume>) -> Option<&mut Entry> {
        self.volumes.get_mut(&volume.target).filter(|entry| Arc::ptr_eq(&entry.volume, volume))
    }

    /// Whether the class is still as it was seen last.
    pub(super) fn is_current(&self, class: &Arc<Class>) -> bool {
        matches!(self.classes.get(&class.reference), Some(Some(seen)) if Arc::ptr_eq(seen, class))
    }

    pub(super) fn unplanned(&self, class: &ClassRef) -> impl Iterator<Item = &Entry> {
        self.volumes.values().filter(move |entry| entry.key.is_none() && entry.volume.class == *class)
    }

    pub(super) fn insert(&mut self, request: &PublishRequest, lock: &Arc<Target>, epoch: Epoch, feed: Feed) -> bool {
        let Ok(class) = request.class.clone() else { return false };
        // Unpublished while it was published: nobody would ever remove it.
        if lock.epoch() != epoch {
            return false;
        }
        if self.volumes.len() >= MOST && !self.volumes.contains_key(&request.target) {
            if !std::mem::replace(&mut self.full, true) {
                warn!(volumes = MOST, "there are more volumes than can be refreshed; the others keep what they hold");
            }
            return false;
        }
        let volume = Arc::new(TrackedVolume {
            target: request.target.clone(),
            pod: request.pod.clone(),
            class,
            group: request.group,
            lock: lock.clone(),
            epoch,
        });
        self.classes.entry(volume.class.clone()).or_default();
        let entry = Entry {
            volume,
            feed,
            key: None,
            urgent: false,
            last_write: None,
            failing: None,
            untold: false,
            excused: false,
            pod: PodSeen::Unknown,
        };
        self.volumes.insert(request.target.clone(), entry);
        true
    }

    pub(super) fn forget(&mut self, target: &TargetPath) {
        let Some(entry) = self.volumes.remove(target) else { return };
        let class = &entry.volume.class;
        if self.volumes.values().all(|other| other.volume.class != *class) {
            self.classes.remove(class);
        }
    }

    pub(super) fn saw(&mut self, reference: &ClassRef, class: Option<&Arc<Class>>, now: Instant) -> Option<Arc<Class>> {
        // Nobody has it any more.
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
        let mut waits = false;
        for entry in self.volumes.values_mut().filter(|entry| entry.volume.class == *reference) {
            // Both what was fetched for the class as it was, and what failed for it.
            if entry.key.take().is_some() || entry.failing.is_some() {
                entry.urgent = true;
            }
            // Versions of what the class asked for before say nothing to a provider that is asked for something else.
            if let Some(last) = &mut entry.last_write {
                last.held = None;
            }
            waits |= entry.urgent;
        }
        if !waits {
            return Some(class.clone());
        }
        self.schedule.hurry(&WorkItem::Plan(reference.clone()), now);
        None
    }

    /// The shared form of a key.
    pub(super) fn key(&self, key: FetchKey) -> Arc<FetchKey> {
        self.successes.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone())
    }

    pub(super) fn subscribe(
        &mut self,
        target: &TargetPath,
        key: &Arc<FetchKey>,
        options: &RotationOptions,
        now: Instant,
    ) {
        let interval = self.interval(&key.class, options);
        let Some(entry) = self.volumes.get_mut(target) else { return };
        entry.key = Some(key.clone());
        let unit = WorkItem::Fetch(key.clone());
        self.successes.entry(key.clone()).or_insert_with(clock::since_boot);
        if std::mem::take(&mut entry.urgent) {
            self.schedule.hurry(&unit, now);
        } else {
            self.schedule.add(&unit, schedule::first(now, interval, dice()));
        }
        if key.identity.is_of_volume() {
            // All volumes of one provider fare alike when it is down.
            let class = self.classes.get(&key.class).and_then(Option::as_deref);
            self.schedule.suspect(&unit, class.map_or("", |class| class.provider.as_str()));
        }
    }

    pub(super) fn interval(&self, class: &ClassRef, options: &RotationOptions) -> Duration {
        let class = self.classes.get(class).and_then(Option::as_deref);
        class.and_then(Class::rotation_interval).unwrap_or(options.interval)
    }
}

pub(super) fn dice() -> f64 {
    // Without random numbers, which a running kernel has, everything comes in the middle.
    process::random_number().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
