//! Tells that a volume was published, or that its content changed.
//!
//! Whoever changes a volume tells it here, without waiting; the mirror into Kubernetes Secrets listens. Keyed by target and
//! bounded, see `news`: a volume that changes often is heard of once.

use crate::model::{ClassRef, PodRef};
use crate::queue::notify::{Notifier, Subscription};

use super::target::TargetPath;

/// One volume that holds something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The pod it belongs to.
    pub pod: PodRef,
    /// The class it is filled from.
    pub class: ClassRef,
    /// Where it is mounted.
    pub target: TargetPath,
}

/// Where changes of volumes are told. Cheap to clone; all clones have the same listeners.
#[derive(Debug, Clone, Default)]
pub struct Changes(Notifier<TargetPath, Change>);

impl Changes {
    /// Tells that a volume holds something new. Returns at once.
    pub fn tell(&self, change: Change) {
        self.0.send(change.target.clone(), change);
    }

    /// Tells from now on which volumes hold something new.
    pub fn subscribe(&self) -> Subscription<TargetPath, Change> {
        self.0.subscribe()
    }
}
