//! Publishing a volume: from a checked request to files that a pod can read.
//!
//! Does not know gRPC and does not retry: the kubelet calls again. Fetching comes before mounting, so that most
//! failures leave nothing to undo; `medium` does the mounting.
//!
//! # Flow
//! 1. A target that holds a published volume is a success at once (`republish`); one whose last write was cut off is mended.
//! 2. The class is looked up in the pod's namespace and checked.
//! 3. The provider fetches everything, before the deadline, holding no lock.
//! 4. Under the target's lock, the tmpfs is filled and shown, unless the target was unpublished meanwhile.
//! 5. With rotation, the volume is known from then on, and further calls for it only bring credentials.
//! 6. The cluster is told how it ended, in the background.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::changes::Change;
use super::error::Error;
use super::locks::{Epoch, Target};
use super::medium::{self, State};
use super::registry::LastWrite;
use super::request::PublishRequest;
use super::source::{Fetch, Identity, check};
use super::target::{KubeletRoot, TargetPath};
use super::volumes::{Volumes, blocking};
use crate::azure::provider::{self, Purpose};
use crate::model::{Class, ClassRef, Payload};
use crate::server::metrics::Provider;

/// What stands on a target before a publish.
enum Found {
    /// No volume.
    Nothing,
    /// A volume.
    Volume,
    /// A volume that is not below the kubelet's root.
    Outside,
}

/// What a publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The volume was there already; nothing was fetched and nothing was written.
    Already,
    /// The volume was fetched, mounted and filled.
    Now,
}

/// A publish that has ended.
#[derive(Debug)]
pub struct Attempt {
    /// Whom the class names; [`Provider::None`] where nobody was asked.
    pub provider: Provider,
    /// How it ended.
    pub outcome: Result<Published, Error>,
}

impl Volumes {
    /// Publishes a volume, or finds it published.
    ///
    /// Run it in a task of its own: it then ends with a whole volume or nothing, whether or not the caller waits.
    /// On any error nothing is mounted by this call.
    pub async fn publish(&self, request: PublishRequest) -> Attempt {
        let mut asked = None;
        let outcome = self.publish_untold(&request, &mut asked).await;
        // A pod that the context only pretends to be of gets no event.
        if let (Some(reports), Err(error)) = (&self.reports, &outcome)
            && !matches!(error, Error::Provider(provider::Error::OtherPod(_)))
        {
            reports.failed(&request.pod, error.reason(), &error.to_string());
        }
        // Only now, since a provider counts as known once it was found.
        let provider = asked.map_or(Provider::None, |name| self.metrics.provider(&name));
        Attempt { provider, outcome }
    }

    /// Whether a published volume is on `target`, in whatever order; changes nothing.
    pub async fn is_published(&self, target: &TargetPath, deadline: Instant) -> bool {
        let site = self.site(target);
        let state = blocking(target, deadline, move || medium::state(&site)).await;
        matches!(state, Ok(State::Whole | State::Torn | State::Outside))
    }

    async fn publish_untold(&self, request: &PublishRequest, asked: &mut Option<String>) -> Result<Published, Error> {
        let target = self.locks.target(&request.target);
        let epoch = target.epoch();
        match self.already_published(request, &target, epoch).await? {
            Found::Nothing => {}
            Found::Volume => {
                self.feed(request, &target, epoch).await;
                return Ok(Published::Already);
            }
            Found::Outside => {
                let root = self.root.as_deref().map(KubeletRoot::as_str).unwrap_or_default();
                warn!(pod = %request.pod, target = %request.target, root,
                    "a volume that is mounted, and not below --kubelet-root, keeps what it holds; the call's tokens are dropped");
                return Ok(Published::Already);
            }
        }
        let (class, identity, payload) = tokio::select! {
            fetched = self.fetch(request, asked) => fetched?,
            // What it would have computed or waited for, nobody needs any more.
            () = target.left(epoch) => return Err(Error::Unpublished { target: request.target.to_string() }),
        };
        let versions = payload.versions().to_vec();
        let last_write = self.rotation.as_ref().map(|_| LastWrite::of(&payload, request.group, &identity));
        if !self.show(request, &target, epoch, payload).await? {
            // Another call for the same volume was faster, perhaps with other content: what is there is what counts.
            self.feed(request, &target, epoch).await;
            return Ok(Published::Already);
        }
        if target.epoch() != epoch {
            // Unpublished since: there is nothing left to follow or to tell of.
            return Ok(Published::Now);
        }
        if let (Some(registry), Some(last_write)) = (&self.rotation, last_write) {
            registry.published(request, (&target, epoch), (&class, identity), last_write);
        }
        let (pod, target) = (request.pod.clone(), request.target.clone());
        self.changes.tell(Change { pod, class: class.reference.clone(), target });
        if let Some(reports) = &self.reports {
            reports.published(&request.pod, &class.reference, &request.target.to_string(), &versions);
        }
        Ok(Published::Now)
    }

    async fn already_published(&self, request: &PublishRequest, target: &Target, epoch: Epoch) -> Result<Found, Error> {
        let site = self.site(&request.target);
        let known = self.rotation.as_ref().is_some_and(|registry| registry.knows(&request.target, epoch));
        match blocking(&request.target, request.deadline, move || medium::state(&site)).await {
            Ok(State::Unmounted | State::Unfilled) => Ok(Found::Nothing),
            Ok(State::Whole) => Ok(Found::Volume),
            Ok(State::Outside) => Ok(Found::Outside),
            // A refresh may be writing at this moment, and the next one mends what is torn: no call waits for that, and none for
            // a volume that a pod uses fails (docs/decisions.md#d4).
            Ok(State::Torn) | Err(_) if known => Ok(Found::Volume),
            Err(error) => Err(error),
            Ok(State::Torn) => {
                let writing = self.lock(&request.target, target, request.deadline).await?;
                // What was seen may have been an unpublish at work.
                if target.epoch() != epoch {
                    return Err(Error::Unpublished { target: request.target.to_string() });
                }
                let site = self.site(&request.target);
                let mended = blocking(&request.target, request.deadline, move || {
                    let _held = writing;
                    medium::mend(&site)
                });
                match mended.await {
                    // What a pod may use is not answered with an error; it is torn still, and the next write mends it.
                    Err(error) if target.epoch() == epoch => {
                        warn!(target = %request.target, err = %error, "a volume whose last write was cut off cannot be mended");
                        Ok(Found::Volume)
                    }
                    other => Ok(if other? { Found::Volume } else { Found::Nothing }),
                }
            }
        }
    }

    async fn fetch(
        &self,
        request: &PublishRequest,
        asked: &mut Option<String>,
    ) -> Result<(Arc<Class>, Identity, Payload), Error> {
        let reference = request.class.clone()?;
        let class = match self.class(&reference, request.deadline).await {
            Ok(class) => class,
            // Whether another pod's namespace has such a class, and what is wrong with it, is not this pod's to learn.
            Err(error) => return Err(self.other_pod(request).unwrap_or(error)),
        };
        if !request.read_only {
            return Err(Error::NotReadOnly);
        }
        *asked = Some(class.provider.clone());
        let PublishRequest { context, secrets, target, deadline, .. } = request;
        let (class, purpose) = (Arc::new(class), Purpose::Mount);
        let (held, files, deadline) = (&[], None, *deadline);
        let fetch = Fetch { class: &class, context, secrets, target, held, files, purpose, deadline };
        let prepared = self.sources.prepare(fetch).await?;
        let (identity, payload) = (prepared.identity(), prepared.fetch().await?);
        drop(prepared);
        Ok((class, identity, payload))
    }

    async fn class(&self, reference: &ClassRef, deadline: Instant) -> Result<Class, Error> {
        let looked = timeout_at(deadline, self.classes.get(reference)).await;
        let class = looked.map_err(|_| Error::ClassSlow(reference.clone()))??;
        check(&class)?;
        Ok(class)
    }

    /// Shows the payload; false when the volume was there already and nothing was written.
    async fn show(
        &self,
        request: &PublishRequest,
        target: &Arc<Target>,
        epoch: Epoch,
        payload: Payload,
    ) -> Result<bool, Error> {
        let writing = self.lock(&request.target, target, request.deadline).await?;
        if target.epoch() != epoch {
            return Err(Error::Unpublished { target: request.target.to_string() });
        }
        let (site, group) = (self.site(&request.target), request.group);
        blocking(&request.target, request.deadline, move || {
            // Held until the write has ended, also when nobody waits for it any more.
            let _held = writing;
            medium::fill(&site, &payload, group)
        })
        .await
    }
}
