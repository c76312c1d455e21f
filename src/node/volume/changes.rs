//! Notifies subscribers of volumes that were published or whose content changed.
//!
//! Sending never waits. Changes are keyed by target and bounded (`queue::notify`): a subscriber
//! that is slow receives one change for a volume that changed often.

use crate::model::{ClassRef, PodRef};
use crate::queue::notify::{Notifier, Subscription};

use super::target::TargetPath;

/// A volume whose content is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The pod that mounts the volume.
    pub pod: PodRef,
    /// The class that the volume is filled from.
    pub class: ClassRef,
    /// Where the volume is mounted.
    pub target: TargetPath,
}

/// The changes of a node's volumes. Cheap to clone; all clones have the same subscribers.
#[derive(Debug, Clone, Default)]
pub struct Changes(Notifier<TargetPath, Change>);

impl Changes {
    /// Notifies the subscribers. Returns at once.
    pub fn send(&self, change: Change) {
        self.0.send(change.target.clone(), change);
    }

    /// Subscribes to all changes from now on.
    pub fn subscribe(&self) -> Subscription<TargetPath, Change> {
        self.0.subscribe()
    }
}
