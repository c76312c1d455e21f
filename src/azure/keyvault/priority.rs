//! Pure. The priority of a fetch: a mount, for which a pod waits, goes before a refresh.
//!
//! Keeps no queue: `vault_queue` and `fetch_permits` read the priority of their waiters, and
//! `single_flight` raises it when a mount joins the fetch of a refresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::Purpose;

/// The priority of one fetch. Clones share it, so that raising one raises all.
#[derive(Debug, Clone)]
pub(super) struct Priority(Arc<AtomicBool>);

impl Priority {
    pub(super) fn of(purpose: Purpose) -> Priority {
        Priority(Arc::new(AtomicBool::new(purpose == Purpose::Mount)))
    }

    /// Whether a pod waits for it.
    pub(super) fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Raises this priority to `other`, which waits for the same fetch.
    pub(super) fn raise_to(&self, other: &Priority) {
        if other.is_high() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
