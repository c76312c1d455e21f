//! Per-target write lock, plus an epoch by which a publish in flight notices an unpublish.
//!
//! A publish gets its [`TargetLock`] at the start, and holds the lock only while it writes, never
//! while it fetches. Performs no mounts.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use super::target::TargetPath;

/// The locks of all targets in use.
#[derive(Debug, Default)]
pub(super) struct Locks {
    targets: Mutex<HashMap<TargetPath, Weak<TargetLock>>>,
}

/// The lock and the epoch of one target.
#[derive(Debug, Default)]
pub(super) struct TargetLock {
    write: Arc<tokio::sync::Mutex<()>>,
    unpublishes: AtomicU64,
    /// Wakes publishes that still fetch.
    unpublished: Notify,
}

/// The number of unpublishes of a target so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// The right to change a target, until it is dropped.
#[derive(Debug)]
pub(super) struct WriteGuard(#[expect(dead_code, reason = "held, never read")] OwnedMutexGuard<()>);

impl Locks {
    /// The lock of a target, shared by all that hold it at the same time.
    pub(super) fn get(&self, path: &TargetPath) -> Arc<TargetLock> {
        // A panic cannot leave the map inconsistent: every change is one insertion or removal.
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = targets.get(path).and_then(Weak::upgrade) {
            return target;
        }
        targets.retain(|_, target| target.strong_count() > 0);
        let target = Arc::new(TargetLock::default());
        targets.insert(path.clone(), Arc::downgrade(&target));
        target
    }
}

impl TargetLock {
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.unpublishes.load(Ordering::Acquire))
    }

    /// Starts a new epoch: a publish of an earlier one must not mount the target again.
    pub(super) fn record_unpublish(&self) {
        self.unpublishes.fetch_add(1, Ordering::AcqRel);
        self.unpublished.notify_waiters();
    }

    /// Waits until the target is unpublished; returns at once if that happened after `epoch`.
    pub(super) async fn unpublished_after(&self, epoch: Epoch) {
        loop {
            // Registers before the check, so that no unpublish is missed between check and wait.
            let mut notified = pin!(self.unpublished.notified());
            notified.as_mut().enable();
            if self.epoch() != epoch {
                return;
            }
            notified.await;
        }
    }

    /// Waits for the write lock; `None` if the deadline passes first.
    pub(super) async fn lock(&self, deadline: Instant) -> Option<WriteGuard> {
        timeout_at(deadline, Arc::clone(&self.write).lock_owned()).await.ok().map(WriteGuard)
    }
}
