//! Which volumes are refreshed, by which fetch, and what is known of their content.
//!
//! In memory only: the kubelet's calls fill it, and fill it again after a restart. Asks nobody and writes nothing; the cycles in
//! `cycle` do, between two looks in here. What is known stands in `state`, when what is due in `schedule`, credentials in `feed`.
//!
//! # Guarantees
//! No call waits for anything but a short lock. No payload is kept, only digests.

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

use self::credentials::Feed;
pub(in crate::node) use self::last_write::LastWrite;
pub use self::options::RotationOptions;
pub(in crate::node) use self::schedule::AT_ONCE;
pub(in crate::node) use self::state::Summary;
use self::state::{Entry, State, dice};
pub(in crate::node) use self::tracked::{FetchKey, Member, PodSeen, TrackedVolume, WorkItem};
use super::locks::{Epoch, Target};
use super::request::PublishRequest;
use super::source::Identity;
use super::target::TargetPath;
use crate::model::{Class, ClassRef, Reason};
use crate::platform::clock;

/// The volumes of this node that are refreshed.
pub(in crate::node) struct Registry {
    pub(in crate::node) options: RotationOptions,
    state: Mutex<State>,
    /// Something became due earlier, or something has ended.
    pub(in crate::node) news: Notify,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The kubelet's side.
impl Registry {
    pub(in crate::node::volume) fn new(options: RotationOptions) -> Registry {
        Registry { options, state: Mutex::default(), news: Notify::new() }
    }

    /// Whether this volume is known.
    pub(in crate::node::volume) fn knows(&self, target: &TargetPath, epoch: Epoch) -> bool {
        self.lock().volumes.get(target).is_some_and(|entry| entry.volume.epoch == epoch)
    }

    /// Takes what the kubelet brought for a volume that is there. A volume that is not known becomes known.
    pub(in crate::node::volume) fn feed(&self, request: &PublishRequest, lock: &Arc<Target>, epoch: Epoch) {
        let Ok(class) = request.class.clone() else { return };
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        // First: what comes now is not from before a pause.
        state.running(&self.options, now, clock::since_boot());
        let feed = Feed::of(request, &mut state.store, now);
        state.try_again(&request.target, now);
        if let Some(known) = state.volumes.get_mut(&request.target)
            && known.volume.epoch == epoch
            && known.volume.class == class
        {
            let like = known.feed.is_like(&feed);
            known.feed = feed;
            if known.pod == PodSeen::Ending {
                // The kubelet knows better.
                known.pod = PodSeen::Unknown;
            }
            if !like {
                // Another identity perhaps, and perhaps the way out of a failure.
                (known.key, known.urgent) = (None, true);
                state.schedule.hurry(&WorkItem::Plan(class), now);
                self.news.notify_one();
            }
            return;
        }
        if state.insert(request, lock, epoch, feed) {
            state.schedule.hurry(&WorkItem::Plan(class), now);
            self.news.notify_one();
        }
    }

    /// Takes a volume that was published just now, with all that is known of it.
    pub(in crate::node::volume) fn published(
        &self,
        request: &PublishRequest,
        (lock, epoch): (&Arc<Target>, Epoch),
        (class, identity): (&Arc<Class>, Identity),
        last: LastWrite,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let feed = Feed::of(request, &mut state.store, now);
        let attributes = feed.attributes();
        if !state.insert(request, lock, epoch, feed) {
            return;
        }
        state.saw(&class.reference, Some(class), now);
        let key = state.key(FetchKey { class: class.reference.clone(), identity, attributes });
        state.subscribe(&request.target, &key, &self.options, now);
        if let Some(entry) = state.volumes.get_mut(&request.target) {
            entry.last_write = Some(last);
        }
        self.news.notify_one();
    }

    /// Forgets a volume that is unpublished.
    pub(in crate::node::volume) fn forget(&self, target: &TargetPath) {
        self.lock().forget(target);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a thread that died left half done is at worst a group that nobody is in, which the next cycle removes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's side.
impl Registry {
    /// Gives out what is due longest; it must be [ended](Registry::ended).
    pub(in crate::node) fn take(&self, now: Instant) -> Option<WorkItem> {
        self.lock().schedule.take(now)
    }

    /// When something comes up next.
    pub(in crate::node) fn next(&self) -> Option<Instant> {
        self.lock().schedule.next()
    }

    /// Notes that something has ended; it comes up again after its interval, if there is somebody left in it.
    pub(in crate::node) fn ended(&self, unit: &WorkItem) {
        let mut state = self.lock();
        let (wanted, class) = match unit {
            WorkItem::Plan(class) => (state.unplanned(class).next().is_some(), class),
            WorkItem::Fetch(key) => (state.volumes.values().any(|entry| entry.key.as_ref() == Some(key)), &key.class),
        };
        if wanted {
            let interval = state.interval(class, &self.options);
            state.schedule.ended(unit, interval, dice(), Instant::now());
        } else {
            state.schedule.remove(unit);
            if let WorkItem::Fetch(key) = unit {
                state.successes.remove(key);
            }
        }
        self.news.notify_one();
    }

    /// The classes of all volumes.
    pub(in crate::node) fn classes(&self) -> Vec<ClassRef> {
        self.lock().classes.keys().cloned().collect()
    }

    /// Takes a class as it is now, `None` when it cannot be had. One that asks for something else than before makes all its
    /// volumes due; the answer is the class to go on with, unless that has to wait for them to be planned.
    pub(in crate::node) fn saw(&self, reference: &ClassRef, class: Option<Class>) -> Option<Arc<Class>> {
        let now = Instant::now();
        let known = self.lock().saw(reference, class.map(Arc::new).as_ref(), now);
        self.news.notify_one();
        known
    }

    /// The volumes of a class that no fetch refreshes yet.
    pub(in crate::node) fn unplanned(&self, class: &ClassRef) -> Vec<Member> {
        self.lock().unplanned(class).map(Entry::member).collect()
    }

    /// Notes by which identities volumes of a class are fetched, but for those that have become others meanwhile.
    pub(in crate::node) fn plan(&self, class: &Arc<Class>, planned: &[(Member, Identity)]) {
        let mut state = self.lock();
        if !state.is_current(class) {
            return;
        }
        let now = Instant::now();
        for (Member { volume, feed, .. }, identity) in planned {
            if state.entry(volume).is_none_or(|entry| !entry.feed.is_like(feed)) {
                continue;
            }
            let (class, attributes) = (volume.class.clone(), feed.attributes());
            let key = state.key(FetchKey { class, identity: identity.clone(), attributes });
            state.subscribe(&volume.target, &key, &self.options, now);
        }
        self.news.notify_one();
    }

    /// Has the plan of a class made once more, as soon as it has ended.
    pub(in crate::node) fn plan_again(&self, class: &ClassRef) {
        self.lock().schedule.hurry(&WorkItem::Plan(class.clone()), Instant::now());
        self.news.notify_one();
    }

    /// Has it found out anew by which fetch a volume is refreshed.
    pub(in crate::node) fn unplan(&self, volume: &Arc<TrackedVolume>) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(volume) {
            (entry.key, entry.urgent) = (None, true);
            state.schedule.hurry(&WorkItem::Plan(volume.class.clone()), Instant::now());
            self.news.notify_one();
        }
    }

    /// The volumes of a fetch, those with the freshest credentials first.
    pub(in crate::node) fn members(&self, key: &Arc<FetchKey>) -> Vec<Member> {
        let state = self.lock();
        let runs = |entry: &&Entry| entry.pod != PodSeen::Ending;
        let members = state.volumes.values().filter(|entry| entry.key.as_ref() == Some(key)).filter(runs);
        let mut members: Vec<Member> = members.map(Entry::member).collect();
        members.sort_by_key(|member| std::cmp::Reverse((member.feed.is_live(), member.feed.received)));
        members
    }

    /// The volumes of pods of which nothing is known, or of all pods.
    pub(in crate::node) fn pods(&self, all: bool) -> Vec<Arc<TrackedVolume>> {
        let state = self.lock();
        let wanted = state.volumes.values().filter(|entry| all || entry.pod == PodSeen::Unknown);
        wanted.map(|entry| entry.volume.clone()).collect()
    }

    /// Takes what a volume's pod is like now. A value of the annotation that changed makes the volume due.
    pub(in crate::node) fn saw_pod(&self, volume: &Arc<TrackedVolume>, seen: PodSeen) {
        let mut state = self.lock();
        let Some(entry) = state.entry(volume) else { return };
        let before = std::mem::replace(&mut entry.pod, seen);
        let asked = matches!((&before, &entry.pod), (PodSeen::Running(before), PodSeen::Running(now)) if before != now);
        if !asked {
            return;
        }
        // What is asked for before it is known who fetches it is due once that is known.
        entry.urgent = entry.key.is_none();
        if let Some(key) = entry.key.clone() {
            state.schedule.hurry(&WorkItem::Fetch(key), Instant::now());
            self.news.notify_one();
        }
    }

    /// Whether a fetch by this key and class is still what the volume needs.
    pub(in crate::node) fn wants(&self, volume: &Arc<TrackedVolume>, key: &Arc<FetchKey>, class: &Arc<Class>) -> bool {
        let mut state = self.lock();
        state.is_current(class) && state.entry(volume).is_some_and(|entry| entry.key.as_ref() == Some(key))
    }

    /// Notes what a volume holds now; `None` when that is not known.
    pub(in crate::node) fn wrote(&self, volume: &Arc<TrackedVolume>, last: Option<LastWrite>) {
        if let Some(entry) = self.lock().entry(volume) {
            entry.last_write = last;
        }
    }

    /// Notes how a volume fares; says whether that is to be told.
    pub(in crate::node) fn fares(&self, volume: &Arc<TrackedVolume>, failing: Option<Reason>) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entry(volume) else { return false };
        let changed = std::mem::replace(&mut entry.failing, failing) != failing;
        std::mem::take(&mut entry.untold) || changed
    }

    /// Notes that it could not be told.
    pub(in crate::node) fn untold(&self, volume: &Arc<TrackedVolume>) {
        if let Some(entry) = self.lock().entry(volume) {
            entry.untold = true;
        }
    }

    /// Drops a volume whose mount is not there any more.
    pub(in crate::node) fn lost(&self, volume: &Arc<TrackedVolume>) {
        let mut state = self.lock();
        if state.entry(volume).is_some() {
            state.forget(&volume.target);
        }
    }

    /// How often a class is fetched.
    pub(in crate::node) fn interval(&self, class: &ClassRef) -> Duration {
        self.lock().interval(class, &self.options)
    }

    /// Notes that a fetch succeeded.
    pub(in crate::node) fn fetched(&self, key: &Arc<FetchKey>) {
        if let Some(success) = self.lock().successes.get_mut(key) {
            *success = clock::since_boot();
        }
    }

    /// Whether a volume's failure is not to be told, since a pause of the process may be its cause: the run on `unit`
    /// began before the pause ended, or used what the kubelet brought before it. The volume is tried again.
    pub(in crate::node) fn excuses(&self, unit: &WorkItem, began: Instant, volume: &Arc<TrackedVolume>) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        // The loop may not have run since.
        state.running(&self.options, now, clock::since_boot());
        let State { volumes, pauses, schedule, .. } = &mut *state;
        let entry = volumes.get_mut(&volume.target).filter(|entry| Arc::ptr_eq(&entry.volume, volume));
        let Some(entry) = entry else { return false };
        if pauses.since(began) {
            schedule.hurry(unit, now);
            self.news.notify_one();
            return true;
        }
        entry.excused = pauses.excuse(entry.feed.received, now, self.options.republish);
        entry.excused
    }

    /// Drops credentials that were not renewed in time; says how the volumes fare.
    pub(in crate::node) fn sweep(&self, now: Instant, since_boot: Duration) -> Summary {
        let mut state = self.lock();
        state.running(&self.options, now, since_boot);
        let RotationOptions { republish, .. } = self.options;
        let State { volumes, pauses, .. } = &mut *state;
        let mut again = Vec::new();
        for (target, entry) in volumes {
            if pauses.excuse(entry.feed.received, now, republish) {
                continue;
            }
            if entry.excused {
                again.push(target.clone());
            }
            if entry.feed.is_live() && now >= entry.feed.received + self.options.credentials_lifetime() {
                entry.feed.drop_credentials();
            }
        }
        again.iter().for_each(|target| state.try_again(target, now));
        let failing = state.volumes.values().filter(|entry| entry.failing.is_some()).count();
        let successes = state.volumes.values().filter_map(|entry| state.successes.get(entry.key.as_ref()?));
        let oldest_success = successes.min().map(|success| since_boot.saturating_sub(*success));
        let next_expiration = state.volumes.values().filter_map(|entry| entry.last_write.as_ref()?.expires).min();
        Summary { volumes: state.volumes.len(), failing, oldest_success, next_expiration }
    }
}
