//! Lists and watches the objects of one kind, and passes them to a [`Sink`]: classes, pods,
//! statuses.
//!
//! `kube`'s own watcher does not report when a broken watch works again, and until then every
//! lookup has to be a request.
//!
//! # Guarantees
//! After a failure, and after a watch that ended early, the next try waits up to 30 s. A broken
//! watch continues from its last resourceVersion; only if that has expired is everything listed
//! again, at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectList, PartialObjectMeta, WatchEvent};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::client::Connection;
use super::error::RequestError;
use crate::queue::backoff::{Backoff, jitter};
use crate::queue::warn_once::WarnOnce;

/// Objects in a page: they may be large, and a whole page is in memory.
const PAGE: u32 = 100;
/// The deadline of a page, and of the start of a watch.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A watch that lasts this long counts as successful.
const SUCCESSFUL: Duration = Duration::from_secs(5);
/// Between tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Receives the objects of one kind.
pub(super) trait Sink: Send + Sync {
    /// Identifies an object.
    type Key: Eq + Hash + Send;
    /// The part of an object that is kept.
    type Entry: Send;

    /// Trims an object, before the next page is read; `None` to skip it.
    fn read(&self, object: DynamicObject) -> Option<(Self::Key, Self::Entry)>;

    /// Replaces everything by a complete list.
    fn replace_all(&self, entries: HashMap<Self::Key, Self::Entry>);

    /// Applies one change; `None` if the object was deleted.
    fn changed(&self, key: Self::Key, entry: Option<Self::Entry>);

    /// Records whether the watch works.
    fn set_live(&self, live: bool);
}

/// Which objects to watch, and the log messages about failures.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) resource: ApiResource,
    /// A label selector.
    pub(super) labels: Option<String>,
    /// A field selector.
    pub(super) fields: Option<String>,
    /// Whether to request metadata only.
    pub(super) metadata_only: bool,
    /// The effect of a broken watch.
    pub(super) meanwhile: &'static str,
    /// The advice if the server forbids it.
    pub(super) grant: &'static str,
}

impl Followed {
    /// All objects of a kind, complete.
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

/// Keeps a sink up to date; never returns.
pub(super) async fn follow(connection: Connection, followed: Followed, sink: impl Sink) {
    let api: Api<DynamicObject> = Api::all_with(connection.client(), &followed.resource);
    let mut retry = Retry { followed: &followed, backoff: BACKOFF, failing: WarnOnce::default() };
    // Whether the last watch ended because its resourceVersion had expired.
    let mut expired = false;
    loop {
        let mut version = match list(&api, &followed, &sink).await {
            Ok(version) => version,
            Err(failure) => {
                sink.set_live(false);
                retry.pause(Some(failure)).await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let ended = watch(&api, &mut version, &sink, &mut retry).await;
            sink.set_live(false);
            let failure = ended.err();
            if began.elapsed() >= SUCCESSFUL {
                // The server ends every watch after some minutes.
                retry.backoff.reset();
                expired = false;
            }
            if failure == Some(RequestError::Expired) {
                // The next list brings the changes without a pause, unless this happens twice in a
                // row.
                if std::mem::replace(&mut expired, true) {
                    retry.pause(failure).await;
                }
                break;
            }
            if failure.is_some() || began.elapsed() < SUCCESSFUL {
                retry.pause(failure).await;
            }
        }
    }
}

/// Lists everything; returns the resourceVersion from which to watch.
async fn list(api: &Api<DynamicObject>, followed: &Followed, sink: &impl Sink) -> Result<String, RequestError> {
    let mut entries = HashMap::new();
    let mut page = ListParams {
        label_selector: followed.labels.clone(),
        field_selector: followed.fields.clone(),
        ..ListParams::default().limit(PAGE)
    };
    loop {
        let list = with_timeout(followed.page(api, &page)).await?;
        entries.extend(list.items.into_iter().filter_map(|object| sink.read(object)));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => {
                info!(count = entries.len(), "{} listed", followed.plural());
                sink.replace_all(entries);
                return Ok(list.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Watches from `version` until the server ends the watch.
async fn watch(
    api: &Api<DynamicObject>,
    version: &mut String,
    sink: &impl Sink,
    retry: &mut Retry<'_>,
) -> Result<(), RequestError> {
    let followed = retry.followed;
    let plural = followed.plural();
    let mut events = with_timeout(followed.events(api, version)).await?;
    sink.set_live(true);
    debug!(%version, "watching {plural}");
    if retry.failing.resolve() {
        info!("{plural} are watched again");
    }
    while let Some(event) = events.next().await {
        let (object, exists) = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, true),
            Ok(WatchEvent::Deleted(object)) => (object, false),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                *version = bookmark.metadata.resource_version;
                continue;
            }
            Ok(WatchEvent::Error(status)) => return Err(RequestError::of(&kube::Error::Api(status))),
            Err(kube::Error::SerdeError(error)) => {
                // One malformed event must not stop the watch.
                warn!(err = %error, "a watch event of {plural} cannot be read");
                continue;
            }
            Err(error) => return Err(RequestError::of(&error)),
        };
        if let Some(seen) = &object.metadata.resource_version {
            version.clone_from(seen);
        }
        if let Some((key, entry)) = sink.read(object) {
            sink.changed(key, exists.then_some(entry));
        }
    }
    Ok(())
}

/// Pauses and warnings between failures.
struct Retry<'a> {
    followed: &'a Followed,
    backoff: Backoff,
    /// By variant: the texts of one kind differ from try to try.
    failing: WarnOnce<Discriminant<RequestError>>,
}

impl Retry<'_> {
    /// Logs the failure, as a warning if it is new, and waits.
    async fn pause(&mut self, failure: Option<RequestError>) {
        let wait = self.backoff.next(jitter());
        let plural = self.followed.plural();
        match failure {
            // Versions expire in normal operation.
            Some(failure)
                if failure != RequestError::Expired
                    && self.failing.should_warn(discriminant(&failure), Instant::now()) =>
            {
                warn!(err = %failure, advice = failure.advice(self.followed.grant), "cannot watch {plural}; until that works, {}",
                    self.followed.meanwhile);
            }
            other => debug!(failure = ?other, ?wait, "watching {plural} again"),
        }
        sleep(wait).await;
    }
}

async fn with_timeout<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(response) => response.map_err(|error| RequestError::of(&error)),
        Err(_) => Err(RequestError::timeout(REQUEST_TIMEOUT)),
    }
}
