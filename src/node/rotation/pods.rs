//! Passes the state of the volumes' pods from the watch to the registry.
//!
//! Reads only the watch cache of this node's pods and sends no request. Without a cluster, the
//! state of all pods stays unknown.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;

use crate::kubernetes::{PodKey, Pods};
use crate::model::REFRESH_ANNOTATION;
use crate::node::volume::registry::{PodState, Registry, TrackedVolume};
use crate::queue::notify::{Batch, Subscription};

/// The watch of this node's pods; `None` without a cluster.
pub(super) struct WatchedPods(Option<(Pods, Subscription<PodKey, ()>)>);

impl WatchedPods {
    pub(super) fn new(pods: Option<Pods>) -> WatchedPods {
        WatchedPods(pods.map(|pods| {
            let changes = pods.changes();
            (pods, changes)
        }))
    }

    /// Waits until pods change. Cancel safe.
    pub(super) async fn next(&self) -> Batch<PodKey, ()> {
        match &self.0 {
            Some((_, changes)) => changes.next().await,
            None => pending().await,
        }
    }

    /// Updates the pods of a batch of changes.
    pub(super) fn update_changed(&self, registry: &Registry, batch: &Batch<PodKey, ()>) {
        let Some((pods, _)) = &self.0 else { return };
        let changed: HashSet<&PodKey> = batch.changed.iter().map(|(key, ())| key).collect();
        for volume in registry.volumes() {
            let key = (volume.pod.namespace.clone(), volume.pod.name.clone());
            let is_changed = changed.contains(&key);
            // A batch that overflowed may lack changes.
            if is_changed || batch.overflowed {
                update(registry, pods, &volume, is_changed);
            }
        }
    }

    /// Updates the pods whose state is unknown.
    pub(super) fn update_unknown(&self, registry: &Registry) {
        let Some((pods, _)) = &self.0 else { return };
        for volume in registry.with_unknown_pod() {
            update(registry, pods, &volume, false);
        }
    }
}

fn update(registry: &Registry, pods: &Pods, volume: &Arc<TrackedVolume>, is_changed: bool) {
    match pods.known(&volume.pod) {
        Some(pod) if pod.terminating => registry.update_pod(volume, PodState::Terminating),
        Some(pod) => {
            registry.update_pod(volume, PodState::Running(pod.annotations.get(REFRESH_ANNOTATION).cloned()));
        }
        // Without a change, the watch may just not have delivered the pod yet.
        None if is_changed && pods.is_gone(&volume.pod) => registry.update_pod(volume, PodState::Terminating),
        None => {}
    }
}
