//! Publishing a volume: from a checked request to files that a pod can read.
//!
//! Never retries: the kubelet calls again. Fetches before it mounts, so that most failures leave
//! nothing to undo; `tmpfs` does the mounting.
//!
//! # Flow
//! 1. If the target holds a published volume, the call succeeds at once (`republish`); a volume
//!    whose last write was interrupted is repaired.
//! 2. The class is looked up in the pod's namespace and checked.
//! 3. The provider fetches all objects before the deadline. No lock is held.
//! 4. Under the target's lock, the tmpfs is filled and mounted, unless the target was unpublished
//!    meanwhile.
//! 5. With rotation, the volume is registered: further calls for it only deliver credentials.
//! 6. The outcome is reported to the cluster in the background.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::changes::Change;
use super::class::check;
use super::error::Error;
use super::locks::{Epoch, TargetLock};
use super::registry::LastWrite;
use super::request::PublishRequest;
use super::target::{KubeletRoot, TargetPath};
use super::tmpfs::{self, State};
use super::volumes::{Volumes, blocking};
use crate::backend::{FetchIdentity, Held};
use crate::model::{Class, ClassRef, Fetch, Payload, Purpose};
use crate::server::metrics::Provider;

/// What a publish finds on its target.
enum Found {
    Nothing,
    Volume,
    /// A volume that is not below the kubelet's root.
    Outside,
}

/// What a successful publish did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The volume was published before; nothing was fetched and nothing was written.
    Already,
    /// The volume was fetched, mounted and filled.
    Now,
}

/// The result of a publish.
#[derive(Debug)]
pub struct Attempt {
    /// The provider of the class; [`Provider::None`] if no provider was asked.
    pub provider: Provider,
    /// What was done, or why not.
    pub outcome: Result<Published, Error>,
}

impl Volumes {
    /// Publishes a volume, or finds it published.
    ///
    /// Run it in a task of its own: then it always ends with a complete volume or with nothing,
    /// even if the caller goes away. After an error, this call has left no mount.
    pub async fn publish(&self, request: PublishRequest) -> Attempt {
        let (class, outcome) = self.try_publish(&request).await;
        // No event for a pod that the volume context only claims to belong to.
        if let (Some(reports), Err(error)) = (&self.reports, &outcome)
            && !error.is_of_other_pod()
        {
            reports.failed(&request.caller.pod, error.reason(), &error.to_string());
        }
        // Last, since a provider gets a label of its own only after it was found.
        let provider = class.map_or(Provider::None, |class| self.metrics.providers().label(&class.provider));
        Attempt { provider, outcome }
    }

    /// Whether a published volume is on `target`, complete or not; changes nothing.
    pub async fn is_published(&self, target: &TargetPath, deadline: Instant) -> bool {
        let mount_point = self.mount_point(target);
        let state = blocking(target, deadline, move || tmpfs::state(&mount_point)).await;
        matches!(state, Ok(State::Complete | State::Interrupted | State::Outside))
    }

    /// The outcome, with the class if its provider was asked.
    async fn try_publish(&self, request: &PublishRequest) -> (Option<Arc<Class>>, Result<Published, Error>) {
        let target = self.locks.get(&request.target);
        let epoch = target.epoch();
        match self.find_volume(request, &target, epoch).await {
            Ok(Found::Nothing) => {}
            Ok(Found::Volume) => {
                self.renew_credentials(request, &target, epoch).await;
                return (None, Ok(Published::Already));
            }
            Ok(Found::Outside) => {
                let root = self.root.as_deref().map(KubeletRoot::as_str).unwrap_or_default();
                warn!(pod = %request.caller.pod, target = %request.target, root,
                    "a mounted volume is not below --kubelet-root: it keeps its content, and the call's tokens are dropped");
                return (None, Ok(Published::Already));
            }
            Err(error) => return (None, Err(error)),
        }
        let class = tokio::select! {
            class = self.requested_class(request) => class,
            () = target.unpublished_after(epoch) => Err(unpublished(request)),
        };
        match class {
            Ok(class) => {
                let outcome = self.publish_class(request, &class, &target, epoch).await;
                (Some(class), outcome)
            }
            Err(error) => (None, Err(error)),
        }
    }

    async fn publish_class(
        &self,
        request: &PublishRequest,
        class: &Arc<Class>,
        target: &Arc<TargetLock>,
        epoch: Epoch,
    ) -> Result<Published, Error> {
        let (identity, payload) = tokio::select! {
            fetched = self.fetch(request, class) => fetched?,
            () = target.unpublished_after(epoch) => return Err(unpublished(request)),
        };
        let versions = payload.versions().to_vec();
        let last_write = self.registry.as_ref().map(|_| LastWrite::of(&payload, request.group, &identity));
        if !self.mount(request, target, epoch, payload).await? {
            // Another call for this volume was faster. Its content counts, even if it differs.
            self.renew_credentials(request, target, epoch).await;
            return Ok(Published::Already);
        }
        if target.epoch() != epoch {
            // Unpublished since: there is no volume to register or report.
            return Ok(Published::Now);
        }
        if let (Some(registry), Some(last_write)) = (&self.registry, last_write) {
            registry.insert_published(request, (target, epoch), (class, identity), last_write);
        }
        let (pod, target) = (request.caller.pod.clone(), request.target.clone());
        self.changes.send(Change { pod, class: class.reference.clone(), target });
        if let Some(reports) = &self.reports {
            reports.published(&request.caller.pod, &class.reference, &request.target.to_string(), &versions);
        }
        Ok(Published::Now)
    }

    async fn find_volume(&self, request: &PublishRequest, target: &TargetLock, epoch: Epoch) -> Result<Found, Error> {
        let mount_point = self.mount_point(&request.target);
        let registered = self.registry.as_ref().is_some_and(|registry| registry.contains(&request.target, epoch));
        match blocking(&request.target, request.deadline, move || tmpfs::state(&mount_point)).await {
            Ok(State::Unmounted | State::Unfilled) => Ok(Found::Nothing),
            Ok(State::Complete) => Ok(Found::Volume),
            Ok(State::Outside) => Ok(Found::Outside),
            // A refresh may be writing right now, and the next refresh repairs an interrupted
            // write: no call waits for that, and no call fails for a volume in use
            // (docs/decisions.md#d4).
            Ok(State::Interrupted) | Err(_) if registered => Ok(Found::Volume),
            Err(error) => Err(error),
            Ok(State::Interrupted) => self.repair(request, target, epoch).await,
        }
    }

    async fn repair(&self, request: &PublishRequest, target: &TargetLock, epoch: Epoch) -> Result<Found, Error> {
        let guard = self.lock(&request.target, target, request.deadline).await?;
        // An unpublish in progress looks like an interrupted write.
        if target.epoch() != epoch {
            return Err(unpublished(request));
        }
        let mount_point = self.mount_point(&request.target);
        let repaired = blocking(&request.target, request.deadline, move || {
            let _guard = guard;
            tmpfs::repair(&mount_point)
        });
        match repaired.await {
            // No call fails for a volume that a pod may use; the next write tries the repair again.
            Err(error) if target.epoch() == epoch => {
                warn!(target = %request.target, err = %error,
                    "the last write of a volume was interrupted, and the volume cannot be repaired");
                Ok(Found::Volume)
            }
            other => Ok(if other? { Found::Volume } else { Found::Nothing }),
        }
    }

    async fn requested_class(&self, request: &PublishRequest) -> Result<Arc<Class>, Error> {
        let reference = request.class.clone()?;
        let class = match self.class(&reference, request.deadline).await {
            Ok(class) => class,
            // A pod must not learn about classes in the namespace of another pod.
            Err(error) => return Err(self.other_pod(request).unwrap_or(error)),
        };
        if !request.read_only {
            return Err(Error::NotReadOnly);
        }
        Ok(Arc::new(class))
    }

    async fn class(&self, reference: &ClassRef, deadline: Instant) -> Result<Class, Error> {
        let looked = timeout_at(deadline, self.classes.get(reference)).await;
        let class = looked.map_err(|_| Error::ClassSlow(reference.clone()))??;
        check(&class)?;
        Ok(class)
    }

    async fn fetch(&self, request: &PublishRequest, class: &Class) -> Result<(FetchIdentity, Payload), Error> {
        let PublishRequest { caller, target, deadline, .. } = request;
        let fetch = Fetch { class, caller, target: target.as_str(), purpose: Purpose::Mount, deadline: *deadline };
        let prepared = self.backends.prepare(fetch, Held::default()).await?;
        Ok((prepared.identity(), prepared.payload().await?))
    }

    /// Mounts the payload; false if a volume is mounted already, which stays as it is.
    async fn mount(
        &self,
        request: &PublishRequest,
        target: &Arc<TargetLock>,
        epoch: Epoch,
        payload: Payload,
    ) -> Result<bool, Error> {
        let guard = self.lock(&request.target, target, request.deadline).await?;
        if target.epoch() != epoch {
            return Err(unpublished(request));
        }
        let (mount_point, group) = (self.mount_point(&request.target), request.group);
        blocking(&request.target, request.deadline, move || {
            // Until the write ends, even if the caller stops waiting for it.
            let _guard = guard;
            tmpfs::fill(&mount_point, &payload, group)
        })
        .await
    }
}

fn unpublished(request: &PublishRequest) -> Error {
    Error::Unpublished { target: request.target.to_string() }
}
