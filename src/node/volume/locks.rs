//! One writer for each target, and news of an unpublish to publishes that are still fetching.
//!
//! Holds no lock while anything is fetched, and knows nothing of mounts.
//! `publish` and `unpublish` take a [`Target`] at their start and its lock only around their changes.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use super::target::TargetPath;

/// The targets that somebody works on at this moment.
#[derive(Debug, Default)]
pub(super) struct Locks {
    targets: Mutex<HashMap<TargetPath, Weak<Target>>>,
}

/// One target that somebody works on.
#[derive(Debug, Default)]
pub(super) struct Target {
    writing: Arc<tokio::sync::Mutex<()>>,
    unpublished: AtomicU64,
    /// Wakes the publishes that are still fetching.
    left: Notify,
}

/// How often a target was unpublished so far; compared later, it tells whether that happened in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// The right to change a target. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Writing(#[expect(dead_code, reason = "held, never read")] OwnedMutexGuard<()>);

impl Locks {
    /// The shared state of one target; it lives as long as somebody holds it.
    pub(super) fn target(&self, path: &TargetPath) -> Arc<Target> {
        // A panic while the map is held leaves it whole: every change is one insertion or removal.
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = targets.get(path).and_then(Weak::upgrade) {
            return target;
        }
        targets.retain(|_, target| target.strong_count() > 0);
        let target = Arc::new(Target::default());
        targets.insert(path.clone(), Arc::downgrade(&target));
        target
    }
}

impl Target {
    /// The epoch now.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.unpublished.load(Ordering::Acquire))
    }

    /// Notes that the target was unpublished: publishes that began before must not mount it again.
    pub(super) fn unpublished(&self) {
        self.unpublished.fetch_add(1, Ordering::AcqRel);
        self.left.notify_waiters();
    }

    /// Waits until the target is unpublished, if it was not since `epoch`.
    pub(super) async fn left(&self, epoch: Epoch) {
        loop {
            // Listens first, so that nothing comes between the look and the wait.
            let mut notified = pin!(self.left.notified());
            notified.as_mut().enable();
            if self.epoch() != epoch {
                return;
            }
            notified.await;
        }
    }

    /// Waits for the right to change the target; `None` when the deadline passes first.
    pub(super) async fn lock(&self, deadline: Instant) -> Option<Writing> {
        timeout_at(deadline, Arc::clone(&self.writing).lock_owned()).await.ok().map(Writing)
    }
}
