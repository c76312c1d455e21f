//! Pure. What a fetch is for, and therefore who goes first: a pod that waits for its volume before one that has it.
//!
//! Sends nothing and keeps no queue: `budget` asks for the rank of each who waits, and `flight` raises one that somebody of a
//! higher rank has joined. Control comes from `vaults`, which gives every fetch its rank.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use crate::model::Purpose;

/// A fetch's place in the queue. Clones are one: what raises one raises all.
#[derive(Debug, Clone)]
pub(super) struct Rank(Arc<AtomicBool>);

impl Rank {
    pub(super) fn of(purpose: Purpose) -> Rank {
        Rank(Arc::new(AtomicBool::new(purpose == Purpose::Mount)))
    }

    /// Whether a pod waits for it.
    pub(super) fn is_first(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that somebody of this rank waits for it, too.
    pub(super) fn join(&self, other: &Rank) {
        if other.is_first() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
