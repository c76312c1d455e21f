//! A cache of the volume names by which pods mount classes.
//!
//! Filled from publishes on this node and from pod specs; never from status objects, which anyone
//! with the right to write them could use to have other volumes read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Volume names by pod UID and class. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone, Default)]
pub(super) struct Volumes(Arc<Mutex<HashMap<String, HashMap<String, String>>>>);

impl Volumes {
    /// Adds a volume. Of several volumes with one class the first stays: all have the same content.
    pub(super) fn put(&self, uid: &str, class: &str, volume: &str) {
        let mut known = self.lock();
        known.entry(uid.to_owned()).or_default().entry(class.to_owned()).or_insert_with(|| volume.to_owned());
    }

    pub(super) fn get(&self, uid: &str, class: &str) -> Option<String> {
        self.lock().get(uid).and_then(|classes| classes.get(class)).cloned()
    }

    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, String>>> {
        // Every change is one insertion or removal, so that a panic leaves no half-made entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
