//! What is done when something is due: planning the fetches of a class, or making one for all its volumes.
//!
//! Knows what is wanted from `registry` and leaves there what came of it; waits for nothing while it looks. Fetches through
//! `provider`, has `refresh` write, and tells the cluster only what is news.
//!
//! # Guarantees
//! A failure changes no file. What is fetched for a class as it was is not written once the class is another one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::held_files::ConvertedFiles;
use crate::model::{Class, ClassRef, Payload, Reason};
use crate::node::volume::registry::{FetchKey, LastWrite, Member, Registry, TrackedVolume, WorkItem};
use crate::node::volume::{Change, Error, Fetch, Group, HeldFiles, Identity, Purpose, Refreshed, Volumes, check};
use crate::server::metrics::Metrics;

/// How long a cycle may take at least and at most; in between, as long as the interval.
const DEADLINES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(110)];

/// How many volumes are written at a time.
const WRITES: usize = 2;

/// How many credentials of one identity are tried when they are refused; their tokens may differ.
const TRIES: usize = 3;

/// One turn of the loop, with all that it needs.
pub(super) struct Cycle {
    volumes: Volumes,
    registry: Arc<Registry>,
    metrics: Metrics,
    item: WorkItem,
    began: Instant,
}

/// What one credential brought.
enum Outcome {
    Fetched(Payload),
    /// The credential stands for somebody else by now, so that it says nothing about this fetch.
    Another,
    Failed(Error),
}

impl Cycle {
    pub(super) fn new(volumes: Volumes, registry: Arc<Registry>, metrics: Metrics, item: WorkItem) -> Cycle {
        Cycle { volumes, registry, metrics, item, began: Instant::now() }
    }

    /// Does what is due.
    pub(super) async fn run(&self) {
        match &self.item {
            WorkItem::Plan(class) => self.plan(class).await,
            WorkItem::Fetch(key) => self.fetch(key).await,
        }
    }

    /// Finds out who asks for each volume of a class that has no fetch yet.
    async fn plan(&self, reference: &ClassRef) {
        let deadline = Instant::now() + DEADLINES[0];
        let class = match self.class(reference, deadline).await {
            Ok(Some(class)) => class,
            Ok(None) => return,
            Err(error) => return self.failed("", &volumes(&self.registry.unplanned(reference)), &error),
        };
        let (mut planned, mut unread) = (Vec::new(), false);
        for member in self.registry.unplanned(reference) {
            match self.identity(&class, &member, deadline).await {
                Ok(identity) => planned.push((member, identity)),
                // Its certificate waits behind others of its namespace; what was read by now is known the next time.
                Err(error) if error.reason() == Reason::Overloaded => unread = true,
                Err(error) => self.failed(&class.provider, &[member.volume], &error),
            }
            // Reading a class a hundred times must not hold up anybody.
            tokio::task::yield_now().await;
        }
        // All at once: a fetch that began with the first one would be made again for the others.
        self.registry.plan(&class, &planned);
        if unread {
            self.registry.plan_again(reference);
        }
    }

    async fn identity(&self, class: &Class, member: &Member, deadline: Instant) -> Result<Identity, Error> {
        let (context, secrets) = member.feed.opened(&member.volume.pod);
        let (target, held, files, purpose) = (&member.volume.target, &[], None, Purpose::Refresh);
        let fetch = Fetch { class, context: &context, secrets: &secrets, target, held, files, purpose, deadline };
        Ok(self.volumes.sources.prepare(fetch).await?.identity())
    }

    /// Fetches once, for all volumes of this key.
    async fn fetch(&self, key: &Arc<FetchKey>) {
        let [least, most] = DEADLINES;
        let deadline = self.began + self.registry.interval(&key.class).clamp(least, most);
        let members = self.registry.members(key);
        if members.is_empty() {
            return;
        }
        let class = match self.class(&key.class, deadline).await {
            Ok(Some(class)) => class,
            Ok(None) => return,
            Err(error) => return self.failed("", &volumes(&members), &error),
        };
        match self.asked(key, &class, &members, deadline).await {
            Ok(Some(payload)) => {
                self.registry.fetched(key);
                self.write(key, &class, members, Arc::new(payload)).await;
                self.metrics.refresh_took(self.began.elapsed());
            }
            Ok(None) => {}
            Err(error) => self.failed(&class.provider, &volumes(&members), &error),
        }
    }

    /// The class as it is now; `None` when its volumes have to be planned anew first.
    async fn class(&self, reference: &ClassRef, deadline: Instant) -> Result<Option<Arc<Class>>, Error> {
        let looked = timeout_at(deadline, self.volumes.classes.get(reference)).await;
        let class = match looked {
            Ok(looked) => looked.map_err(Error::from),
            Err(_) => Err(Error::ClassSlow(reference.clone())),
        };
        let class = class.and_then(|class| check(&class).map(|()| class));
        match class {
            Ok(class) => Ok(self.registry.saw(reference, Some(class))),
            Err(error) => {
                self.registry.saw(reference, None);
                Err(error)
            }
        }
    }

    /// Asks with the freshest credentials, and with others of the same identity if those are refused: their tokens differ.
    async fn asked(
        &self,
        key: &Arc<FetchKey>,
        class: &Class,
        members: &[Member],
        deadline: Instant,
    ) -> Result<Option<Payload>, Error> {
        let (mut last, mut tried): (_, Vec<&Member>) = (None, Vec::new());
        for member in members {
            if tried.len() >= TRIES || tried.iter().any(|tried| tried.feed.has_tokens_of(&member.feed)) {
                continue;
            }
            tried.push(member);
            match self.ask(key, class, member, deadline).await {
                Outcome::Fetched(payload) => return Ok(Some(payload)),
                Outcome::Another => self.registry.unplan(&member.volume),
                Outcome::Failed(error) if is_about_credentials(error.reason()) => last = Some(error),
                Outcome::Failed(error) => return Err(error),
            }
        }
        last.map_or(Ok(None), Err)
    }

    async fn ask(&self, key: &FetchKey, class: &Class, member: &Member, deadline: Instant) -> Outcome {
        let live = member.feed.is_live();
        let lapsed = || {
            let since = member.feed.received.elapsed();
            Outcome::Failed(Error::CredentialsLapsed { class: class.reference.clone(), since })
        };
        // For whom another program takes a pod that brings nothing, nobody here can know.
        if !live && key.identity.is_of_volume() {
            return lapsed();
        }
        let (context, secrets) = member.feed.opened(&member.volume.pod);
        let held = member.last_write.as_ref().and_then(|last| last.held.as_deref()).unwrap_or_default();
        let files = ConvertedFiles::of(&member.volume, member.last_write.as_ref());
        let files = files.as_ref().map(|files| files as &dyn HeldFiles);
        let (target, purpose) = (&member.volume.target, Purpose::Refresh);
        let fetch = Fetch { class, context: &context, secrets: &secrets, target, held, files, purpose, deadline };
        let prepared = match self.volumes.sources.prepare(fetch).await {
            Ok(prepared) => prepared,
            // Without them, what is missing is not the pod's fault.
            Err(_) if !live => return lapsed(),
            Err(error) => return Outcome::Failed(error),
        };
        if prepared.identity() != key.identity {
            return Outcome::Another;
        }
        match prepared.fetch().await {
            Ok(payload) => Outcome::Fetched(payload),
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Writes what was fetched to the volumes that hold something else.
    async fn write(&self, key: &Arc<FetchKey>, class: &Arc<Class>, members: Vec<Member>, payload: Arc<Payload>) {
        let mut wanted: HashMap<Option<Group>, LastWrite> = HashMap::new();
        for Member { volume, .. } in &members {
            wanted.entry(volume.group).or_insert_with(|| LastWrite::of(&payload, volume.group, &key.identity));
        }
        let writes = members.into_iter().filter_map(|member| {
            let wanted = wanted.get(&member.volume.group)?.clone();
            Some((member, wanted))
        });
        let writes = futures::stream::iter(writes).for_each_concurrent(WRITES, |(member, wanted)| {
            let payload = payload.clone();
            async move {
                // Asked for at the last moment: the class may be another one by now, or the volume gone.
                if self.registry.wants(&member.volume, key, class) {
                    self.write_one(&class.provider, &member, wanted, payload).await;
                }
            }
        });
        writes.await;
    }

    async fn write_one(&self, provider: &str, member: &Member, wanted: LastWrite, payload: Arc<Payload>) {
        let (volume, before) = (&member.volume, &member.last_write);
        let done = match before {
            Some(before) if before.content == wanted.content => Ok(Refreshed::Unchanged),
            Some(_) | None => self.volumes.refresh(volume, payload.clone()).await,
        };
        match done {
            Ok(Refreshed::Gone) => {
                debug!(target = %volume.target, "a volume is gone; nothing is written");
                self.registry.lost(volume);
                return;
            }
            Ok(refreshed) => {
                let rotated = refreshed == Refreshed::Changed;
                self.metrics.refreshed(self.metrics.provider(provider), rotated);
                self.registry.wrote(volume, Some(wanted.clone()));
                if rotated {
                    let (pod, class, target) = (volume.pod.clone(), volume.class.clone(), volume.target.clone());
                    self.volumes.changes.tell(Change { pod, class, target });
                    info!(pod = %volume.pod, target = %volume.target, "volume refreshed");
                }
            }
            Err(error) => {
                // What is on disk is read before the next write.
                self.registry.wrote(volume, None);
                return self.failed(provider, std::slice::from_ref(volume), &error);
            }
        }
        let well = self.registry.fares(volume, None);
        if (well || before.as_ref().is_none_or(|before| before.versions != wanted.versions))
            && let Some(reports) = &self.volumes.reports
        {
            reports.refreshed(&volume.pod, &volume.class, &volume.target.to_string(), payload.versions());
        }
    }

    /// Notes a failure, and tells it where it is news. No file is touched.
    fn failed(&self, provider: &str, volumes: &[Arc<TrackedVolume>], error: &Error) {
        let (reason, text) = (error.reason(), error.to_string());
        let provider = self.metrics.provider(provider);
        let mut news: usize = 0;
        let mut of = None;
        for volume in volumes {
            if self.registry.excuses(&self.item, self.began, volume) {
                debug!(target = %volume.target, %reason, err = %text, "a refresh failed after a pause; it is tried again");
                continue;
            }
            self.metrics.refresh_failed(provider, error.cause());
            // Somebody else holds the target; the next cycle comes soon enough.
            if reason == Reason::Busy || !self.registry.fares(volume, Some(reason)) {
                continue;
            }
            news += 1;
            of = Some(volume);
            let target = volume.target.to_string();
            if let Some(reports) = &self.volumes.reports
                && !reports.refresh_failed(&volume.pod, &volume.class, &target, reason, &text)
            {
                self.registry.untold(volume);
            }
        }
        if let Some(volume) = of {
            warn!(class = %volume.class, pod = %volume.pod, volumes = news, %reason, err = %text,
                "volumes cannot be refreshed; they keep what they hold");
        }
    }
}

fn volumes(members: &[Member]) -> Vec<Arc<TrackedVolume>> {
    members.iter().map(|member| member.volume.clone()).collect()
}

/// Whether another token of the same identity may be answered otherwise (docs/decisions.md#d6).
fn is_about_credentials(reason: Reason) -> bool {
    use Reason::{CredentialsMissing, CredentialsRejected, Forbidden, Unauthorized};
    matches!(reason, CredentialsMissing | CredentialsRejected | Unauthorized | Forbidden)
}
