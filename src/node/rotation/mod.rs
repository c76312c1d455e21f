//! The loop that refreshes published volumes (docs/decisions.md#d2 to docs/decisions.md#d5).
//!
//! It schedules fetches, not volumes: one fetch for all volumes with the same class, identity and
//! attributes. The kubelet's calls only deliver credentials; the registry of `node::volume` stores
//! them and decides what is due. `cycle` runs one work item.
//!
//! # Guarantees
//! The loop survives every failure of a cycle, including a panic. At most `AT_ONCE` cycles run at
//! a time.

mod cycle;
mod held_files;
mod pods;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::info;

use self::cycle::Cycle;
use self::pods::WatchedPods;
use super::volume::Volumes;
use super::volume::registry::{AT_ONCE, Registry, RotationOptions, Summary, WorkItem};
use crate::kubernetes::Pods;
use crate::platform::clock;
use crate::server::metrics::NodeMetrics;

/// A running work item. Dropping it, also by a panic, returns its permit and finishes the item.
struct Running {
    registry: Arc<Registry>,
    item: WorkItem,
    permit: Option<OwnedSemaphorePermit>,
}

impl Running {
    /// Starts the next due item; `None` if none is due, or [`AT_ONCE`] run already.
    fn next(registry: &Arc<Registry>, permits: &Arc<Semaphore>, now: Instant) -> Option<Running> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        let item = registry.take(now)?;
        Some(Running { registry: registry.clone(), item, permit: Some(permit) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Before `finish`, which wakes the loop: the loop needs the permit then.
        self.permit = None;
        self.registry.finish(&self.item);
    }
}

/// The refresh loop of a node's volumes.
#[derive(Debug)]
pub struct Rotation {
    volumes: Volumes,
    registry: Arc<Registry>,
    metrics: NodeMetrics,
    pods: Option<Pods>,
}

impl Rotation {
    /// `None` if `volumes` have no [rotation options](Volumes::rotating). Without `pods`, volumes
    /// of terminating pods are refreshed, too, and pods cannot ask for a refresh.
    pub fn new(volumes: Volumes, metrics: NodeMetrics, pods: Option<Pods>) -> Option<Rotation> {
        let registry = volumes.registry.clone()?;
        Some(Rotation { volumes, registry, metrics, pods })
    }

    /// Refreshes volumes; never returns.
    pub async fn run(self) {
        let Rotation { volumes, registry, metrics, pods } = self;
        let RotationOptions { interval: every, republish } = registry.options;
        info!(interval = ?every, "rotation is on");
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut changes = volumes.classes.changes();
        let pods = WatchedPods::new(pods);
        let mut sweeps = interval(registry.options.sweep());
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(running) = Running::next(&registry, &permits, Instant::now()) {
                let cycle = Cycle::new(volumes.clone(), registry.clone(), metrics.clone(), running.item.clone());
                tokio::spawn(async move {
                    let _running = running;
                    cycle.run().await;
                });
            }
            let due = registry.next().filter(|_| permits.available_permits() > 0);
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(|| Instant::now() + republish)) => {}
                () = registry.changed.notified() => {}
                () = changes.next() => update_classes(&volumes, &registry).await,
                changed = pods.next() => pods.update_changed(&registry, &changed),
                _ = sweeps.tick() => {
                    report(registry.sweep(Instant::now(), clock::since_boot()), &metrics);
                    metrics.rotation().backoff_vaults(volumes.backends.backoff_counts());
                    pods.update_unknown(&registry);
                }
            }
        }
    }
}

fn report(summary: Summary, metrics: &NodeMetrics) {
    let Summary { volumes, failing, oldest_success, next_expiration } = summary;
    metrics.rotation().rotated_volumes(volumes, failing);
    metrics.rotation().oldest_success(oldest_success.map(|age| unix_seconds(age, jiff::Timestamp::now())));
    metrics.rotation().next_expiration(next_expiration);
}

/// The time `age` ago. Computed anew at each sweep, so that it follows a wall clock that is set.
fn unix_seconds(age: Duration, now: jiff::Timestamp) -> f64 {
    now.as_duration().as_secs_f64() - age.as_secs_f64()
}

/// Makes the volumes of changed classes due.
async fn update_classes(volumes: &Volumes, registry: &Registry) {
    let classes = registry.classes();
    if classes.is_empty() {
        return;
    }
    for class in volumes.classes.seen(classes).await {
        let reference = class.reference.clone();
        registry.update_class(&reference, Some(class));
    }
}
