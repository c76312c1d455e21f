//! Through which volume a pod mounts a class, as far as that is known.
//!
//! Filled by what was published here and by what pods say of themselves; never by status objects. `pass` asks it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The names of volumes by pod UID and class. Cheap to clone; all clones share what is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Volumes(Arc<Mutex<HashMap<String, HashMap<String, String>>>>);

impl Volumes {
    /// Notes the volume; the first one stays where a pod mounts a class more than once, since all hold the same.
    pub(super) fn put(&self, uid: &str, class: &str, volume: &str) {
        let mut known = self.lock();
        known.entry(uid.to_owned()).or_default().entry(class.to_owned()).or_insert_with(|| volume.to_owned());
    }

    /// The volume of this pod and class.
    pub(super) fn get(&self, uid: &str, class: &str) -> Option<String> {
        self.lock().get(uid).and_then(|classes| classes.get(class)).cloned()
    }

    /// Forgets a pod.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, String>>> {
        // Every change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
