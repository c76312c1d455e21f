//! Follows the classes of all namespaces: lists them in pages, then watches from there.
//!
//! Not the `kube` crate's own watcher: it does not tell when a watch that broke works again, and until then every look-up
//! has to ask the server. Fills `classes`, for ever; what a class means is not known here.
//!
//! # Guarantees
//! Between two tries that fail, and between two watches that end early, lies a pause that grows to 30 s. A watch that
//! broke goes on where it ended; only when the server no longer knows that place is everything listed again.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::{StreamExt as _, pin_mut};
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::core::{DynamicObject, WatchEvent};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::class_object;
use super::classes::{ClassCache, resource};
use super::error::Failure;

/// Objects a page: a class may be large, and all of a page lie in memory together.
const PAGE: u32 = 100;
/// How long a page, or the start of a watch, may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a watch lasts that counts as one that worked.
const LASTING: Duration = Duration::from_secs(5);
/// The first and the longest pause.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// What is waited and told between failures.
struct Trouble {
    pauses: ExponentialBackoff,
    /// The kind of failure that was told; texts of one kind differ from try to try.
    told: Option<Discriminant<Failure>>,
}

impl ClassCache {
    /// Keeps the cache in step with the server, for ever.
    pub async fn follow(self) {
        let api: Api<DynamicObject> = Api::all_with(self.connection.client(), &resource());
        let mut trouble = Trouble { pauses: pauses(), told: None };
        loop {
            let mut version = match self.list(&api).await {
                Ok(version) => version,
                Err(failure) => {
                    self.live(false);
                    trouble.pause(Some(failure)).await;
                    continue;
                }
            };
            loop {
                let began = Instant::now();
                let ended = self.watch(&api, &mut version, &mut trouble).await;
                self.live(false);
                let failure = ended.err();
                if began.elapsed() >= LASTING {
                    // The server ends every watch after some minutes.
                    trouble.pauses = pauses();
                }
                if failure.is_some() || began.elapsed() < LASTING {
                    let expired = failure == Some(Failure::Expired);
                    trouble.pause(failure).await;
                    if expired {
                        break;
                    }
                }
            }
        }
    }

    /// Lists everything; gives the version that a watch goes on from.
    async fn list(&self, api: &Api<DynamicObject>) -> Result<String, Failure> {
        let mut entries = HashMap::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = answer(api.list(&page)).await?;
            entries.extend(list.items.into_iter().filter_map(class_object::read));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => {
                    info!(classes = entries.len(), "secretproviderclasses listed");
                    self.listed(entries);
                    return Ok(list.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    /// Takes changes from `version` on, until the server ends the watch.
    async fn watch(
        &self,
        api: &Api<DynamicObject>,
        version: &mut String,
        trouble: &mut Trouble,
    ) -> Result<(), Failure> {
        let params = WatchParams::default();
        let events = answer(api.watch(&params, version)).await?;
        pin_mut!(events);
        self.live(true);
        debug!(%version, "watching secretproviderclasses");
        if trouble.told.take().is_some() {
            info!("secretproviderclasses are watched again");
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
                    warn!(err = %error, "a watch event of secretproviderclasses cannot be read");
                    continue;
                }
                Err(error) => return Err(Failure::of(&error)),
            };
            if let Some(seen) = &object.metadata.resource_version {
                version.clone_from(seen);
            }
            self.changed(object, there);
        }
        Ok(())
    }
}

impl Trouble {
    /// Tells about a failure that is news, and waits.
    async fn pause(&mut self, failure: Option<Failure>) {
        let wait = self.pauses.next().unwrap_or(PAUSES[1]).min(PAUSES[1]);
        match failure {
            // The server forgets old versions in time, and then says so.
            Some(failure) if failure != Failure::Expired && self.told != Some(discriminant(&failure)) => {
                warn!(err = %failure, advice = advice(&failure),
                    "cannot watch secretproviderclasses; until that works, each class is asked for when it is needed");
                self.told = Some(discriminant(&failure));
            }
            other => debug!(failure = ?other, ?wait, "watching secretproviderclasses again"),
        }
        sleep(wait).await;
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

fn advice(failure: &Failure) -> &'static str {
    match failure {
        Failure::Forbidden(_) => {
            "grant get, list and watch on secretproviderclasses of secrets-store.csi.x-k8s.io (ClusterRole secretproviderclasses-role)"
        }
        Failure::NoSuchKind => "install the CRDs (manifests/crds)",
        Failure::NotFound | Failure::AlreadyExists | Failure::Conflict | Failure::Expired | Failure::Other(_) => {
            "is the API server reachable from this node?"
        }
    }
}
