//! The loop that brings published volumes up to date (docs/decisions.md#d2 to
//! docs/decisions.md#d5).
//!
//! What is scheduled is the fetch, not the volume: one for all volumes of one class and identity. The kubelet's calls bring
//! credentials only; `registry` keeps them and knows what belongs together, `schedule` when it is due, `cycle` does it, `refresh`
//! writes one volume. Control comes from `cmd`, which runs [`Volumes::rotate`], and from `publish` and `unpublish`.
//!
//! # Guarantees
//! Whatever one cycle does, a panic too, the loop goes on. At most [`AT_ONCE`] cycles run at a time. With rotation off nothing of
//! this exists.

mod cycle;
mod feed;
mod held;
mod pauses;
mod pods;
mod refresh;
mod registry;
pub(super) mod schedule;
mod state;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::info;

pub(super) use refresh::wrote;
pub(super) use registry::Registry;

use self::cycle::Cycle;
use self::pods::Watched;
use self::state::{Summary, Unit};
use super::Volumes;
use crate::kubernetes::Pods;
use crate::platform::clock;
use crate::server::metrics::Metrics;

/// How many fetches are under way at a time. Each holds one volume's content.
const AT_ONCE: usize = 16;

/// After how many of the kubelet's periods credentials count as not renewed.
const PERIODS: u32 = 3;

/// How often credentials are looked through at most and at least, and what there is is counted.
const SWEEPS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// How rotation works.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often each fetch is made, unless its class says otherwise.
    pub interval: Duration,
    /// How long the kubelet takes at most to call again and bring fresh credentials.
    pub republish: Duration,
}

impl Options {
    /// How long credentials are kept that are not renewed.
    fn credentials(&self) -> Duration {
        self.republish.saturating_mul(PERIODS)
    }

    /// How often the loop looks after credentials, and so shows that it runs.
    fn sweep(&self) -> Duration {
        (self.republish / PERIODS).clamp(SWEEPS[0], SWEEPS[1])
    }

    /// From which length on a time without a sweep is a pause of the process. Up to a period, the periods that
    /// credentials are kept for cover it.
    fn pause(&self) -> Duration {
        self.republish.max(self.sweep() * PERIODS)
    }
}

/// Something that runs; its end is noted however it ends.
struct Running {
    registry: Arc<Registry>,
    unit: Unit,
    place: Option<OwnedSemaphorePermit>,
}

impl Running {
    /// What is due, if there is something, and a place to run it.
    fn next(registry: &Arc<Registry>, places: &Arc<Semaphore>, now: Instant) -> Option<Running> {
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        let unit = registry.take(now)?;
        Some(Running { registry: registry.clone(), unit, place: Some(place) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First, since the end is what the loop waits for when there is no place.
        self.place = None;
        self.registry.ended(&self.unit);
    }
}

impl Volumes {
    /// Brings volumes up to date, for ever; ends at once with rotation off. Without `pods`, nothing is known of them.
    pub async fn rotate(self, metrics: Metrics, pods: Option<Pods>) {
        let Some(registry) = self.rotation.clone() else { return };
        let Options { interval: every, republish } = registry.options;
        info!(interval = ?every, "rotation is on");
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut changes = self.classes.changes();
        let pods = Watched::new(pods);
        let mut sweeps = interval(registry.options.sweep());
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(running) = Running::next(&registry, &places, Instant::now()) {
                let cycle = Cycle::new(self.clone(), registry.clone(), metrics.clone(), running.unit.clone());
                tokio::spawn(async move {
                    let _held = running;
                    cycle.run().await;
                });
            }
            let due = registry.next().filter(|_| places.available_permits() > 0);
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(|| Instant::now() + republish)) => {}
                () = registry.news.notified() => {}
                () = changes.next() => self.look_at_classes(&registry).await,
                changed = pods.next() => pods.look(&registry, Some(&changed)),
                _ = sweeps.tick() => {
                    let Summary { volumes, failing, oldest, expires } = registry.sweep(Instant::now(), clock::since_boot());
                    let left = expires.map(|expires| expires.saturating_sub(jiff::Timestamp::now().as_second()));
                    metrics.refreshed_volumes(volumes, failing, oldest);
                    metrics.first_expiry(left);
                    metrics.backoff_vaults(self.backends.backoff_counts());
                    pods.look(&registry, None);
                }
            }
        }
    }

    /// Has the volumes of classes refreshed that are not as they were.
    async fn look_at_classes(&self, registry: &Registry) {
        let classes = registry.classes();
        if classes.is_empty() {
            return;
        }
        for class in self.classes.seen(classes).await {
            let reference = class.reference.clone();
            registry.saw(&reference, Some(class));
        }
    }
}
