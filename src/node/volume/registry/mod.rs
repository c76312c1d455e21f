//! The registry of volumes that rotation refreshes: credentials, fetch keys, writes, due times.
//!
//! In memory only: the kubelet's calls fill it, and fill it again after a restart. Fetches and
//! writes nothing; `node::rotation` does, between two calls of the registry.
//!
//! # Guarantees
//! No call waits, except for a short lock. No payload is kept, only digests.

mod credentials;
mod last_write;
mod options;
mod pauses;
mod schedule;
mod state;
mod tracked;

#[cfg(test)]
pub(in crate::node) mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(in crate::node) use self::last_write::LastWrite;
pub use self::options::RotationOptions;
pub(in crate::node) use self::schedule::AT_ONCE;
pub(in crate::node) use self::state::Summary;
pub(in crate::node) use self::tracked::{FetchKey, Member, PodState, TrackedVolume, WorkItem};

use self::credentials::Credentials;
use self::state::{Entry, State};
use super::locks::{Epoch, TargetLock};
use super::request::PublishRequest;
use super::target::TargetPath;
use crate::backend::FetchIdentity;
use crate::model::{Class, ClassRef, Reason};
use crate::platform::clock;
use crate::queue::backoff::jitter;

/// The volumes of this node that rotation refreshes.
pub(in crate::node) struct Registry {
    pub(in crate::node) options: RotationOptions,
    state: Mutex<State>,
    /// Notified when an item may be due earlier than [`Registry::next`] returned.
    pub(in crate::node) changed: Notify,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("options", &self.options).finish_non_exhaustive()
    }
}

/// For publish, republish and unpublish.
impl Registry {
    pub(in crate::node::volume) fn new(options: RotationOptions) -> Registry {
        Registry { options, state: Mutex::default(), changed: Notify::new() }
    }

    /// Whether the volume that was published on the target in this epoch is registered.
    pub(in crate::node::volume) fn contains(&self, target: &TargetPath, epoch: Epoch) -> bool {
        self.lock().volumes.get(target).is_some_and(|entry| entry.volume.epoch == epoch)
    }

    /// Stores the credentials of a call for a mounted volume. Registers the volume if it is
    /// unknown, as after a restart.
    pub(in crate::node::volume) fn renew_credentials(
        &self,
        request: &PublishRequest,
        lock: &Arc<TargetLock>,
        epoch: Epoch,
    ) {
        let Ok(class) = request.class.clone() else { return };
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        // First: these credentials are newer than a pause that just ended.
        state.record_running(&self.options, now, clock::since_boot());
        let credentials = Credentials::of(request, &mut state.store, now);
        state.retry_excused(&request.target, now);
        if let Some(known) = state.volumes.get_mut(&request.target)
            && known.volume.epoch == epoch
            && known.volume.class == class
        {
            let same = known.credentials.is_same_identity(&credentials);
            known.credentials = credentials;
            if known.pod == PodState::Terminating {
                // The kubelet still mounts volumes of the pod, and its information is newer.
                known.pod = PodState::Unknown;
            }
            if !same {
                // The identity may be another one, and the new one may end a failure.
                (known.key, known.urgent) = (None, true);
                state.schedule.run_now(&WorkItem::Plan(class), now);
                self.changed.notify_one();
            }
            return;
        }
        if state.insert(request, lock, epoch, credentials) {
            state.schedule.run_now(&WorkItem::Plan(class), now);
            self.changed.notify_one();
        }
    }

    /// Registers a volume that was published just now.
    pub(in crate::node::volume) fn insert_published(
        &self,
        request: &PublishRequest,
        (lock, epoch): (&Arc<TargetLock>, Epoch),
        (class, identity): (&Arc<Class>, FetchIdentity),
        last_write: LastWrite,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let credentials = Credentials::of(request, &mut state.store, now);
        let attributes = credentials.attributes();
        if !state.insert(request, lock, epoch, credentials) {
            return;
        }
        state.update_class(&class.reference, Some(class), now);
        let key = state.key(FetchKey { class: class.reference.clone(), identity, attributes });
        state.assign(&request.target, &key, &self.options, now);
        if let Some(entry) = state.volumes.get_mut(&request.target) {
            entry.last_write = Some(last_write);
        }
        self.changed.notify_one();
    }

    /// Removes a volume that is unpublished.
    pub(in crate::node::volume) fn remove(&self, target: &TargetPath) {
        self.lock().remove(target);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves at worst a key without volumes, which the end of its next run removes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the loop of `node::rotation`.
impl Registry {
    /// Starts the item that has been due longest; it runs until [`finish`](Registry::finish).
    pub(in crate::node) fn take(&self, now: Instant) -> Option<WorkItem> {
        self.lock().schedule.take(now)
    }

    /// When the next item is due.
    pub(in crate::node) fn next(&self) -> Option<Instant> {
        self.lock().schedule.next()
    }

    /// Ends the run of an item. It is due again after its interval, if any volume still needs it.
    pub(in crate::node) fn finish(&self, item: &WorkItem) {
        let mut state = self.lock();
        let (needed, class) = match item {
            WorkItem::Plan(class) => (state.unplanned(class).next().is_some(), class),
            WorkItem::Fetch(key) => (state.volumes.values().any(|entry| entry.key.as_ref() == Some(key)), &key.class),
        };
        if needed {
            let interval = state.interval(class, &self.options);
            state.schedule.finish(item, interval, jitter(), Instant::now());
        } else {
            state.schedule.remove(item);
            if let WorkItem::Fetch(key) = item {
                state.successes.remove(key);
            }
        }
        self.changed.notify_one();
    }

    /// The classes of all volumes.
    pub(in crate::node) fn classes(&self) -> Vec<ClassRef> {
        self.lock().classes.keys().cloned().collect()
    }

    /// Records a class; `None` if its lookup failed.
    ///
    /// A class that asks for other objects than before makes all its volumes due. Returns the class
    /// with which a fetch can go on; `None` if its volumes have to be planned first.
    pub(in crate::node) fn update_class(&self, reference: &ClassRef, class: Option<Class>) -> Option<Arc<Class>> {
        let now = Instant::now();
        let current = self.lock().update_class(reference, class.map(Arc::new).as_ref(), now);
        self.changed.notify_one();
        current
    }

    /// The volumes of a class without a fetch key.
    pub(in crate::node) fn unplanned(&self, class: &ClassRef) -> Vec<Member> {
        self.lock().unplanned(class).map(Entry::member).collect()
    }

    /// Assigns fetch keys to volumes of a class. Leaves out volumes whose credentials changed
    /// meanwhile, and all of them if the class did.
    pub(in crate::node) fn plan(&self, class: &Arc<Class>, planned: &[(Member, FetchIdentity)]) {
        let mut state = self.lock();
        if !state.is_current(class) {
            return;
        }
        let now = Instant::now();
        for (Member { volume, credentials, .. }, identity) in planned {
            if state.entry(volume).is_none_or(|entry| !entry.credentials.is_same_identity(credentials)) {
                continue;
            }
            let (class, attributes) = (volume.class.clone(), credentials.attributes());
            let key = state.key(FetchKey { class, identity: identity.clone(), attributes });
            state.assign(&volume.target, &key, &self.options, now);
        }
        self.changed.notify_one();
    }

    /// Repeats the plan of a class as soon as the current one ends.
    pub(in crate::node) fn rerun_plan(&self, class: &ClassRef) {
        self.lock().schedule.run_now(&WorkItem::Plan(class.clone()), Instant::now());
        self.changed.notify_one();
    }

    /// Removes the fetch key of a volume, so that a plan finds it anew.
    pub(in crate::node) fn unplan(&self, volume: &Arc<TrackedVolume>) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(volume) {
            (entry.key, entry.urgent) = (None, true);
            state.schedule.run_now(&WorkItem::Plan(volume.class.clone()), Instant::now());
            self.changed.notify_one();
        }
    }

    /// The volumes of a fetch key without those of terminating pods; freshest credentials first.
    pub(in crate::node) fn members(&self, key: &Arc<FetchKey>) -> Vec<Member> {
        let state = self.lock();
        let runs = |entry: &&Entry| entry.pod != PodState::Terminating;
        let members = state.volumes.values().filter(|entry| entry.key.as_ref() == Some(key)).filter(runs);
        let mut members: Vec<Member> = members.map(Entry::member).collect();
        members.sort_by_key(|member| std::cmp::Reverse((member.credentials.is_live(), member.credentials.received)));
        members
    }

    /// The volumes whose pod's state is unknown.
    pub(in crate::node) fn with_unknown_pod(&self) -> Vec<Arc<TrackedVolume>> {
        let state = self.lock();
        let unknown = state.volumes.values().filter(|entry| entry.pod == PodState::Unknown);
        unknown.map(|entry| entry.volume.clone()).collect()
    }

    /// All volumes.
    pub(in crate::node) fn volumes(&self) -> Vec<Arc<TrackedVolume>> {
        self.lock().volumes.values().map(|entry| entry.volume.clone()).collect()
    }

    /// Records the state of a volume's pod. A new value of the annotation makes the volume due.
    pub(in crate::node) fn update_pod(&self, volume: &Arc<TrackedVolume>, pod: PodState) {
        let mut state = self.lock();
        let Some(entry) = state.entry(volume) else { return };
        let before = std::mem::replace(&mut entry.pod, pod);
        let requested =
            matches!((&before, &entry.pod), (PodState::Running(before), PodState::Running(now)) if before != now);
        if !requested {
            return;
        }
        // Without a key, the fetch is due as soon as a plan finds it.
        entry.urgent = entry.key.is_none();
        if let Some(key) = entry.key.clone() {
            state.schedule.run_now(&WorkItem::Fetch(key), Instant::now());
            self.changed.notify_one();
        }
    }

    /// Whether a payload of this key and class is still the right one for the volume.
    pub(in crate::node) fn is_current(
        &self,
        volume: &Arc<TrackedVolume>,
        key: &Arc<FetchKey>,
        class: &Arc<Class>,
    ) -> bool {
        let mut state = self.lock();
        state.is_current(class) && state.entry(volume).is_some_and(|entry| entry.key.as_ref() == Some(key))
    }

    /// Records what a volume holds; `None` if that is unknown.
    pub(in crate::node) fn record_write(&self, volume: &Arc<TrackedVolume>, last_write: Option<LastWrite>) {
        if let Some(entry) = self.lock().entry(volume) {
            entry.last_write = last_write;
        }
    }

    /// Records the outcome of a refresh; returns whether it must be reported.
    pub(in crate::node) fn record_outcome(&self, volume: &Arc<TrackedVolume>, failing: Option<Reason>) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entry(volume) else { return false };
        let changed = std::mem::replace(&mut entry.failing, failing) != failing;
        std::mem::take(&mut entry.unreported) || changed
    }

    /// Records that the last outcome could not be reported, so that the next one is.
    pub(in crate::node) fn record_unreported(&self, volume: &Arc<TrackedVolume>) {
        if let Some(entry) = self.lock().entry(volume) {
            entry.unreported = true;
        }
    }

    /// Removes a volume whose mount no longer exists.
    pub(in crate::node) fn remove_gone(&self, volume: &Arc<TrackedVolume>) {
        let mut state = self.lock();
        if state.entry(volume).is_some() {
            state.remove(&volume.target);
        }
    }

    /// The time between two fetches for a class.
    pub(in crate::node) fn interval(&self, class: &ClassRef) -> Duration {
        self.lock().interval(class, &self.options)
    }

    /// Records a successful fetch.
    pub(in crate::node) fn record_success(&self, key: &Arc<FetchKey>) {
        if let Some(success) = self.lock().successes.get_mut(key) {
            *success = clock::since_boot();
        }
    }

    /// Whether a pause of the process may have caused a failure: the run of `item` started before
    /// the end of a pause, or used credentials from before it. Then the refresh is repeated, and
    /// not reported.
    pub(in crate::node) fn excuse(&self, item: &WorkItem, started: Instant, volume: &Arc<TrackedVolume>) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        // The last sweep may have been before the pause.
        state.record_running(&self.options, now, clock::since_boot());
        let State { volumes, pauses, schedule, .. } = &mut *state;
        let entry = volumes.get_mut(&volume.target).filter(|entry| Arc::ptr_eq(&entry.volume, volume));
        let Some(entry) = entry else { return false };
        if pauses.ended_after(started) {
            schedule.run_now(item, now);
            self.changed.notify_one();
            return true;
        }
        entry.excused = pauses.has_grace(entry.credentials.received, now, self.options.republish);
        entry.excused
    }

    /// Expires credentials that were not renewed in time; summarizes all volumes.
    pub(in crate::node) fn sweep(&self, now: Instant, since_boot: Duration) -> Summary {
        let mut state = self.lock();
        state.record_running(&self.options, now, since_boot);
        let State { volumes, pauses, .. } = &mut *state;
        let mut retries = Vec::new();
        for (target, entry) in volumes {
            let received = entry.credentials.received;
            if pauses.has_grace(received, now, self.options.republish) {
                continue;
            }
            if entry.excused {
                retries.push(target.clone());
            }
            if entry.credentials.is_live() && now >= received + self.options.credentials_lifetime() {
                entry.credentials.expire();
            }
        }
        retries.iter().for_each(|target| state.retry_excused(target, now));
        let failing = state.volumes.values().filter(|entry| entry.failing.is_some()).count();
        let successes = state.volumes.values().filter_map(|entry| state.successes.get(entry.key.as_ref()?));
        let oldest_success = successes.min().map(|success| since_boot.saturating_sub(*success));
        let next_expiration = state.volumes.values().filter_map(|entry| entry.last_write.as_ref()?.expires).min();
        Summary { volumes: state.volumes.len(), failing, oldest_success, next_expiration }
    }
}
