//! Follows objects of one kind: lists them in pages, then watches from there, for ever.
//!
//! Not the `kube` crate's own watcher: it does not tell when a watch that broke works again, and until then every look-up
//! has to ask the server. What an object means is known to the [`Sink`] that it goes to: classes, pods, statuses.
//!
//! # Guarantees
//! Between two tries that fail, and between two watches that end early, lies a pause that grows to 30 s. A watch that
//! broke goes on where it ended; only when the server no longer knows that place is everything listed again, at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectList, PartialObjectMeta, WatchEvent};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::client::Connection;
use super::error::Failure;

/// Objects a page: they may be large, and all of a page lie in memory together.
const PAGE: u32 = 100;
/// How long a page, or the start of a watch, may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a watch lasts that counts as one that worked.
const LASTING: Duration = Duration::from_secs(5);
/// The first and the longest pause.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Takes what the server tells of one kind.
pub(super) trait Sink: Send + Sync {
    /// What tells objects apart.
    type Key: Eq + Hash + Send;
    /// What is kept of an object.
    type Entry: Send;

    /// Trims an object as it comes, before the next page does; `None` for one that is of no use.
    fn read(&self, object: DynamicObject) -> Option<(Self::Key, Self::Entry)>;

    /// Takes everything there is; from now on the server is followed.
    fn listed(&self, entries: HashMap<Self::Key, Self::Entry>);

    /// Takes one change: an object that is there now, or `None` for one that is gone.
    fn changed(&self, key: Self::Key, entry: Option<Self::Entry>);

    /// Notes whether the server is followed at this moment.
    fn live(&self, live: bool);
}

/// What is followed, and what people are told when that does not work.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) resource: ApiResource,
    /// Only the objects with these labels.
    pub(super) labels: Option<String>,
    /// Only the objects with these fields.
    pub(super) fields: Option<String>,
    /// Whether the objects come as metadata only.
    pub(super) metadata_only: bool,
    /// What happens while it cannot be watched.
    pub(super) meanwhile: &'static str,
    /// What to grant when the server refuses.
    pub(super) grant: &'static str,
}

impl Followed {
    /// All objects of a kind, whole.
    pub(super) fn all(resource: ApiResource, meanwhile: &'static str, grant: &'static str) -> Followed {
        Followed { resource, labels: None, fields: None, metadata_only: false, meanwhile, grant }
    }

    fn plural(&self) -> &str {
        &self.resource.plural
    }

    async fn page(&self, api: &Api<DynamicObject>, params: &ListParams) -> kube::Result<ObjectList<DynamicObject>> {
        if !self.metadata_only {
            return api.list(params).await;
        }
        let ObjectList { types, metadata, items } = api.list_metadata(params).await?;
        Ok(ObjectList { types, metadata, items: items.into_iter().map(without_data).collect() })
    }

    async fn events(
        &self,
        api: &Api<DynamicObject>,
        version: &str,
    ) -> kube::Result<BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>> {
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..WatchParams::default()
        };
        if !self.metadata_only {
            return Ok(api.watch(&params, version).await?.boxed());
        }
        Ok(api.watch_metadata(&params, version).await?.map_ok(event_without_data).boxed())
    }
}

fn without_data(object: PartialObjectMeta<DynamicObject>) -> DynamicObject {
    DynamicObject { types: object.types, metadata: object.metadata, data: serde_json::Value::Null }
}

fn event_without_data(event: WatchEvent<PartialObjectMeta<DynamicObject>>) -> WatchEvent<DynamicObject> {
    match event {
        WatchEvent::Added(object) => WatchEvent::Added(without_data(object)),
        WatchEvent::Modified(object) => WatchEvent::Modified(without_data(object)),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(without_data(object)),
        WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
        WatchEvent::Error(status) => WatchEvent::Error(status),
    }
}

/// Keeps a sink in step with the server, for ever.
pub(super) async fn follow(connection: Connection, followed: Followed, sink: impl Sink) {
    let api: Api<DynamicObject> = Api::all_with(connection.client(), &followed.resource);
    let mut trouble = Trouble { followed: &followed, pauses: pauses(), told: None };
    // Whether the last watch ended since its place was forgotten.
    let mut expired = false;
    loop {
        let mut version = match list(&api, &followed, &sink).await {
            Ok(version) => version,
            Err(failure) => {
                sink.live(false);
                trouble.pause(Some(failure)).await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let ended = watch(&api, &mut version, &sink, &mut trouble).await;
            sink.live(false);
            let failure = ended.err();
            if began.elapsed() >= LASTING {
                // The server ends every watch after some minutes.
                trouble.pauses = pauses();
                expired = false;
            }
            if failure == Some(Failure::Expired) {
                // News comes with the next list: it is not what the pauses grew for. Twice in a row is.
                if std::mem::replace(&mut expired, true) {
                    trouble.pause(failure).await;
                }
                break;
            }
            if failure.is_some() || began.elapsed() < LASTING {
                trouble.pause(failure).await;
            }
        }
    }
}

/// Lists everything; gives the version that a watch goes on from.
async fn list(api: &Api<DynamicObject>, followed: &Followed, sink: &impl Sink) -> Result<String, Failure> {
    let mut entries = HashMap::new();
    let mut page = ListParams {
        label_selector: followed.labels.clone(),
        field_selector: followed.fields.clone(),
        ..ListParams::default().limit(PAGE)
    };
    loop {
        let list = answer(followed.page(api, &page)).await?;
        entries.extend(list.items.into_iter().filter_map(|object| sink.read(object)));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => {
                info!(count = entries.len(), "{} listed", followed.plural());
                sink.listed(entries);
                return Ok(list.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Takes changes from `version` on, until the server ends the watch.
async fn watch(
    api: &Api<DynamicObject>,
    version: &mut String,
    sink: &impl Sink,
    trouble: &mut Trouble<'_>,
) -> Result<(), Failure> {
    let followed = trouble.followed;
    let plural = followed.plural();
    let mut events = answer(followed.events(api, version)).await?;
    sink.live(true);
    debug!(%version, "watching {plural}");
    if trouble.told.take().is_some() {
        info!("{plural} are watched again");
    }
    while let Some(event) = events.next().await {
        let (object, there) = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, true),
            Ok(WatchEvent::Deleted(object)) => (object, false),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                *version = bookmark.metadata.resource_version;
                continue;
            }
            Ok(WatchEvent::Error(status)) => return Err(Failure::of(&kube::Error::Api(status))),
            Err(kube::Error::SerdeError(error)) => {
                // Not even an object. Those behind it are not to suffer.
                warn!(err = %error, "a watch event of {plural} cannot be read");
                continue;
            }
            Err(error) => return Err(Failure::of(&error)),
        };
        if let Some(seen) = &object.metadata.resource_version {
            version.clone_from(seen);
        }
        if let Some((key, entry)) = sink.read(object) {
            sink.changed(key, there.then_some(entry));
        }
    }
    Ok(())
}

/// What is waited and told between failures.
struct Trouble<'a> {
    followed: &'a Followed,
    pauses: ExponentialBackoff,
    /// The kind of failure that was told; texts of one kind differ from try to try.
    told: Option<Discriminant<Failure>>,
}

impl Trouble<'_> {
    /// Tells about a failure that is news, and waits.
    async fn pause(&mut self, failure: Option<Failure>) {
        let wait = self.pauses.next().unwrap_or(PAUSES[1]).min(PAUSES[1]);
        let plural = self.followed.plural();
        match failure {
            // The server forgets old versions in time, and then says so.
            Some(failure) if failure != Failure::Expired && self.told != Some(discriminant(&failure)) => {
                warn!(err = %failure, advice = self.advice(&failure), "cannot watch {plural}; until that works, {}",
                    self.followed.meanwhile);
                self.told = Some(discriminant(&failure));
            }
            other => debug!(failure = ?other, ?wait, "watching {plural} again"),
        }
        sleep(wait).await;
    }

    fn advice(&self, failure: &Failure) -> &'static str {
        match failure {
            Failure::Forbidden(_) => self.followed.grant,
            Failure::NoSuchKind => "install the CRDs (manifests/crds)",
            Failure::NotFound
            | Failure::AlreadyExists
            | Failure::Conflict
            | Failure::Expired
            | Failure::Refused(_)
            | Failure::Other(_) => "is the API server reachable from this node?",
        }
    }
}

fn pauses() -> ExponentialBackoff {
    let [first, longest] = PAUSES;
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times().with_jitter().build()
}

async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(ANSWER, request).await {
        Ok(answered) => answered.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::timeout(ANSWER)),
    }
}
