//! Which volumes are refreshed, by which fetch, and what is known of their content.
//!
//! In memory only: the kubelet's calls fill it, and fill it again after a restart. Asks nobody and writes nothing; the cycles in
//! `cycle` do, between two looks in here. What is due when is in `schedule`, credentials are in `feed`.
//!
//! # Guarantees
//! No call waits for anything but a short lock. At most [`MOST`] volumes are known. No payload is kept, only digests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::super::layout::{Digest, Group};
use super::super::locks::{Epoch, Target};
use super::super::publish::PublishRequest;
use super::super::target::TargetPath;
use super::Options;
use super::feed::{Feed, Store};
use super::schedule::{self, Schedule};
use crate::model::{Class, ClassRef, PodRef, Reason};
use crate::platform::process;
use crate::provider::Identity;

/// The most volumes that are refreshed; many times what a node may run.
const MOST: usize = 4096;

/// A volume that is refreshed.
#[derive(Debug)]
pub(in crate::volume) struct Volume {
    pub(super) target: TargetPath,
    pub(super) pod: PodRef,
    pub(super) class: ClassRef,
    pub(super) group: Option<Group>,
    pub(super) lock: Arc<Target>,
    /// The target's epoch when the volume was published, or seen published.
    pub(super) epoch: Epoch,
}

/// What decides the content of a volume: all volumes of one key are refreshed by one fetch (design decision 3).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::volume) struct FetchKey {
    pub(super) class: ClassRef,
    pub(super) identity: Identity,
    /// What the pod's author wrote over the class's parameters.
    pub(super) attributes: Digest,
}

/// What a volume holds, as it was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Wrote {
    pub(super) content: Digest,
    pub(super) versions: Digest,
}

/// What can be due.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    /// Finding out which fetches the volumes of a class need.
    Plan(ClassRef),
    /// One fetch for all volumes of its key.
    Fetch(Arc<FetchKey>),
}

/// A volume in a cycle.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) volume: Arc<Volume>,
    pub(super) feed: Feed,
    pub(super) wrote: Option<Wrote>,
}

struct Entry {
    volume: Arc<Volume>,
    feed: Feed,
    /// The fetch that refreshes it; `None` until that is found out.
    key: Option<Arc<FetchKey>>,
    /// Whether it is to be refreshed as soon as that is found out.
    urgent: bool,
    /// `None` until the disk was read: after a restart, and after a write that failed.
    wrote: Option<Wrote>,
    /// Why it cannot be refreshed.
    failing: Option<Reason>,
    /// Whether somebody still has to be told that.
    untold: bool,
}

#[derive(Default)]
struct State {
    volumes: HashMap<TargetPath, Entry>,
    /// The classes of the volumes as they were seen last; `None` when the last look failed.
    classes: HashMap<ClassRef, Option<Arc<Class>>>,
    /// When the fetch of each group last succeeded, or the group began.
    groups: HashMap<Arc<FetchKey>, Instant>,
    schedule: Schedule<Unit>,
    store: Store,
    /// Whether it was told that there are too many volumes.
    full: bool,
}

/// The volumes of this node that are refreshed.
pub(in crate::volume) struct Registry {
    pub(super) options: Options,
    state: Mutex<State>,
    /// Something became due earlier, or something has ended.
    pub(super) news: Notify,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The kubelet's side.
impl Registry {
    pub(in crate::volume) fn new(options: Options) -> Registry {
        Registry { options, state: Mutex::default(), news: Notify::new() }
    }

    /// Whether this volume is known.
    pub(in crate::volume) fn knows(&self, target: &TargetPath, epoch: Epoch) -> bool {
        self.lock().volumes.get(target).is_some_and(|entry| entry.volume.epoch == epoch)
    }

    /// Takes what the kubelet brought for a volume that is there. A volume that is not known becomes known.
    pub(in crate::volume) fn feed(&self, request: &PublishRequest, lock: &Arc<Target>, epoch: Epoch) {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let feed = Feed::of(request, &mut state.store, now);
        let class = request.class();
        if let Some(known) = state.volumes.get_mut(&request.target)
            && known.volume.epoch == epoch
            && known.volume.class == class
        {
            let like = known.feed.is_like(&feed);
            known.feed = feed;
            if !like {
                // Another identity perhaps, and perhaps the way out of a failure.
                (known.key, known.urgent) = (None, true);
                state.schedule.hurry(&Unit::Plan(class), now);
                self.news.notify_one();
            }
            return;
        }
        if state.insert(request, lock, epoch, feed) {
            state.schedule.hurry(&Unit::Plan(class), now);
            self.news.notify_one();
        }
    }

    /// Takes a volume that was published just now, with all that is known of it.
    pub(in crate::volume) fn published(
        &self,
        request: &PublishRequest,
        (lock, epoch): (&Arc<Target>, Epoch),
        (class, identity): (&Arc<Class>, Identity),
        wrote: Wrote,
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
            entry.wrote = Some(wrote);
        }
        self.news.notify_one();
    }

    /// Forgets a volume that is unpublished.
    pub(in crate::volume) fn forget(&self, target: &TargetPath) {
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
    pub(super) fn take(&self, now: Instant) -> Option<Unit> {
        self.lock().schedule.take(now)
    }

    /// When something comes up next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().schedule.next()
    }

    /// Notes that something has ended; it comes up again after its interval, if there is somebody left in it.
    pub(super) fn ended(&self, unit: &Unit) {
        let mut state = self.lock();
        let (wanted, class) = match unit {
            Unit::Plan(class) => (state.unplanned(class).next().is_some(), class),
            Unit::Fetch(key) => (state.volumes.values().any(|entry| entry.key.as_ref() == Some(key)), &key.class),
        };
        if wanted {
            let interval = state.interval(class, &self.options);
            state.schedule.ended(unit, interval, dice(), Instant::now());
        } else {
            state.schedule.remove(unit);
            if let Unit::Fetch(key) = unit {
                state.groups.remove(key);
            }
        }
        self.news.notify_one();
    }

    /// The classes of all volumes.
    pub(super) fn classes(&self) -> Vec<ClassRef> {
        self.lock().classes.keys().cloned().collect()
    }

    /// Takes a class as it is now, `None` when it cannot be had. One that asks for something else than before makes all its
    /// volumes due; the answer is the class to go on with, unless that has to wait for them to be planned.
    pub(super) fn saw(&self, reference: &ClassRef, class: Option<Class>) -> Option<Arc<Class>> {
        let now = Instant::now();
        let known = self.lock().saw(reference, class.map(Arc::new).as_ref(), now);
        self.news.notify_one();
        known
    }

    /// The volumes of a class that no fetch refreshes yet.
    pub(super) fn unplanned(&self, class: &ClassRef) -> Vec<Member> {
        self.lock().unplanned(class).map(Entry::member).collect()
    }

    /// Notes by which identities volumes of a class are fetched, but for those that have become others meanwhile.
    pub(super) fn plan(&self, class: &Arc<Class>, planned: &[(Member, Identity)]) {
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
            let key = state.key(FetchKey { class, identity: *identity, attributes });
            state.subscribe(&volume.target, &key, &self.options, now);
        }
        self.news.notify_one();
    }

    /// Has it found out anew by which fetch a volume is refreshed.
    pub(super) fn unplan(&self, volume: &Arc<Volume>) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(volume) {
            (entry.key, entry.urgent) = (None, true);
            state.schedule.hurry(&Unit::Plan(volume.class.clone()), Instant::now());
            self.news.notify_one();
        }
    }

    /// The volumes of a fetch, those with the freshest credentials first.
    pub(super) fn members(&self, key: &Arc<FetchKey>) -> Vec<Member> {
        let state = self.lock();
        let members = state.volumes.values().filter(|entry| entry.key.as_ref() == Some(key));
        let mut members: Vec<Member> = members.map(Entry::member).collect();
        members.sort_by_key(|member| std::cmp::Reverse((member.feed.is_live(), member.feed.received)));
        members
    }

    /// Whether a fetch by this key and class is still what the volume needs.
    pub(super) fn wants(&self, volume: &Arc<Volume>, key: &Arc<FetchKey>, class: &Arc<Class>) -> bool {
        let mut state = self.lock();
        state.is_current(class) && state.entry(volume).is_some_and(|entry| entry.key.as_ref() == Some(key))
    }

    /// Notes what a volume holds now; `None` when that is not known.
    pub(super) fn wrote(&self, volume: &Arc<Volume>, wrote: Option<Wrote>) {
        if let Some(entry) = self.lock().entry(volume) {
            entry.wrote = wrote;
        }
    }

    /// Notes how a volume fares; says whether that is to be told.
    pub(super) fn fares(&self, volume: &Arc<Volume>, failing: Option<Reason>) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entry(volume) else { return false };
        let changed = std::mem::replace(&mut entry.failing, failing) != failing;
        std::mem::take(&mut entry.untold) || changed
    }

    /// Notes that it could not be told.
    pub(super) fn untold(&self, volume: &Arc<Volume>) {
        if let Some(entry) = self.lock().entry(volume) {
            entry.untold = true;
        }
    }

    /// Drops a volume whose mount is not there any more.
    pub(super) fn lost(&self, volume: &Arc<Volume>) {
        let mut state = self.lock();
        if state.entry(volume).is_some() {
            state.forget(&volume.target);
        }
    }

    /// How often a class is fetched.
    pub(super) fn interval(&self, class: &ClassRef) -> Duration {
        self.lock().interval(class, &self.options)
    }

    /// Notes that a fetch succeeded.
    pub(super) fn fetched(&self, key: &Arc<FetchKey>) {
        if let Some(good) = self.lock().groups.get_mut(key) {
            *good = Instant::now();
        }
    }

    /// Drops credentials that were not renewed in time; says what there is: volumes, those of them that cannot be refreshed,
    /// and for how long the group that waits longest has not been fetched.
    pub(super) fn sweep(&self, now: Instant) -> (usize, usize, Option<Duration>) {
        let mut state = self.lock();
        let limit = self.options.credentials();
        for entry in state.volumes.values_mut() {
            if entry.feed.is_live() && now >= entry.feed.received + limit {
                entry.feed.drop_credentials();
            }
        }
        let failing = state.volumes.values().filter(|entry| entry.failing.is_some()).count();
        let oldest = state.groups.values().min().map(|good| now.saturating_duration_since(*good));
        (state.volumes.len(), failing, oldest)
    }
}

impl Entry {
    fn member(&self) -> Member {
        Member { volume: self.volume.clone(), feed: self.feed.clone(), wrote: self.wrote }
    }
}

impl State {
    /// The entry of exactly this volume.
    fn entry(&mut self, volume: &Arc<Volume>) -> Option<&mut Entry> {
        self.volumes.get_mut(&volume.target).filter(|entry| Arc::ptr_eq(&entry.volume, volume))
    }

    /// Whether the class is still as it was seen last.
    fn is_current(&self, class: &Arc<Class>) -> bool {
        matches!(self.classes.get(&class.reference), Some(Some(seen)) if Arc::ptr_eq(seen, class))
    }

    fn unplanned(&self, class: &ClassRef) -> impl Iterator<Item = &Entry> {
        self.volumes.values().filter(move |entry| entry.key.is_none() && entry.volume.class == *class)
    }

    fn insert(&mut self, request: &PublishRequest, lock: &Arc<Target>, epoch: Epoch, feed: Feed) -> bool {
        if self.volumes.len() >= MOST && !self.volumes.contains_key(&request.target) {
            if !std::mem::replace(&mut self.full, true) {
                warn!(volumes = MOST, "there are more volumes than can be refreshed; the others keep what they hold");
            }
            return false;
        }
        let volume = Arc::new(Volume {
            target: request.target.clone(),
            pod: request.pod.clone(),
            class: request.class(),
            group: request.group,
            lock: lock.clone(),
            epoch,
        });
        self.classes.entry(volume.class.clone()).or_default();
        let entry = Entry { volume, feed, key: None, urgent: false, wrote: None, failing: None, untold: false };
        self.volumes.insert(request.target.clone(), entry);
        true
    }

    fn forget(&mut self, target: &TargetPath) {
        let Some(entry) = self.volumes.remove(target) else { return };
        let class = &entry.volume.class;
        if self.volumes.values().all(|other| other.volume.class != *class) {
            self.classes.remove(class);
        }
    }

    fn saw(&mut self, reference: &ClassRef, class: Option<&Arc<Class>>, now: Instant) -> Option<Arc<Class>> {
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
            waits |= entry.urgent;
        }
        if !waits {
            return Some(class.clone());
        }
        self.schedule.hurry(&Unit::Plan(reference.clone()), now);
        None
    }

    /// The shared form of a key.
    fn key(&self, key: FetchKey) -> Arc<FetchKey> {
        self.groups.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone())
    }

    fn subscribe(&mut self, target: &TargetPath, key: &Arc<FetchKey>, options: &Options, now: Instant) {
        let interval = self.interval(&key.class, options);
        let Some(entry) = self.volumes.get_mut(target) else { return };
        entry.key = Some(key.clone());
        let unit = Unit::Fetch(key.clone());
        self.groups.entry(key.clone()).or_insert(now);
        if std::mem::take(&mut entry.urgent) {
            self.schedule.hurry(&unit, now);
        } else {
            self.schedule.add(&unit, schedule::first(now, interval, dice()));
        }
    }

    fn interval(&self, class: &ClassRef, options: &Options) -> Duration {
        let class = self.classes.get(class).and_then(Option::as_deref);
        class.and_then(Class::rotation_interval).unwrap_or(options.interval)
    }
}

fn dice() -> f64 {
    // Without random numbers, which a running kernel has, everything comes in the middle.
    process::random_number().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
