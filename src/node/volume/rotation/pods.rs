//! What the volumes' pods are like: whether they still run, and whether they ask for a refresh.
//!
//! Reads what the watch of this node's pods has, and asks nobody. What it means for a volume is for `registry`; without a
//! cluster every pod counts as one of which nothing is known.

use std::collections::HashSet;
use std::future::pending;

use super::registry::Registry;
use super::state::PodSeen;
use crate::kubernetes::{PodKey, Pods};
use crate::model::REFRESH_ANNOTATION;
use crate::queue::notify::{Batch, Subscription};

/// The watch of this node's pods, where there is one.
pub(super) struct Watched(Option<(Pods, Subscription<PodKey, ()>)>);

impl Watched {
    pub(super) fn new(pods: Option<Pods>) -> Watched {
        Watched(pods.map(|pods| {
            let changes = pods.changes();
            (pods, changes)
        }))
    }

    /// Waits until pods have changed. Giving up loses nothing.
    pub(super) async fn next(&self) -> Batch<PodKey, ()> {
        match &self.0 {
            Some((_, changes)) => changes.next().await,
            None => pending().await,
        }
    }

    /// Looks at the pods that changed, or without a batch at those of which nothing is known yet.
    pub(super) fn look(&self, registry: &Registry, batch: Option<&Batch<PodKey, ()>>) {
        let Some((pods, _)) = &self.0 else { return };
        let changed: HashSet<&PodKey> =
            batch.into_iter().flat_map(|batch| &batch.changed).map(|(key, ())| key).collect();
        for volume in registry.pods(batch.is_some()) {
            let key = (volume.pod.namespace.clone(), volume.pod.name.clone());
            let told = changed.contains(&key);
            if batch.is_some_and(|batch| !batch.overflowed) && !told {
                continue;
            }
            match pods.known(&volume.pod) {
                Some(pod) if pod.terminating => registry.saw_pod(&volume, PodSeen::Ending),
                Some(pod) => {
                    registry.saw_pod(&volume, PodSeen::Running(pod.annotations.get(REFRESH_ANNOTATION).cloned()));
                }
                // It was there, and has ended or is another one now. One that nobody told of may just not be known yet.
                None if told && pods.is_gone(&volume.pod) => registry.saw_pod(&volume, PodSeen::Ending),
                None => {}
            }
        }
    }
}
