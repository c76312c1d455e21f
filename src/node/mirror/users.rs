//! Which pods on this node use which class.
//!
//! Pure. Learns of pods from publishes and status objects, and of their end from the pod watch.
//!
//! # Guarantees
//! At most [`LIMIT`] uses are kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ClassRef, PodRef};

/// The most pods, counted for each class; a multiple of what a node may run.
const LIMIT: usize = 4096;

/// The pods of each class.
#[derive(Debug, Default)]
pub(super) struct Users {
    classes: BTreeMap<ClassRef, BTreeSet<PodRef>>,
    count: usize,
}

/// The result of [`Users::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Known,
    LimitReached,
}

impl Users {
    pub(super) fn add(&mut self, class: &ClassRef, pod: &PodRef) -> Added {
        if self.classes.get(class).is_some_and(|pods| pods.contains(pod)) {
            return Added::Known;
        }
        if self.count >= LIMIT {
            return Added::LimitReached;
        }
        self.classes.entry(class.clone()).or_default().insert(pod.clone());
        self.count += 1;
        Added::New
    }

    pub(super) fn remove(&mut self, class: &ClassRef, pod: &PodRef) {
        let Some(pods) = self.classes.get_mut(class) else { return };
        if pods.remove(pod) {
            self.count -= 1;
        }
        if pods.is_empty() {
            self.classes.remove(class);
        }
    }

    pub(super) fn has_users(&self, class: &ClassRef) -> bool {
        self.classes.contains_key(class)
    }

    pub(super) fn pods(&self, class: &ClassRef) -> BTreeSet<PodRef> {
        self.classes.get(class).cloned().unwrap_or_default()
    }

    /// The uses by pods with this namespace and name, whatever their UID.
    pub(super) fn of_pod(&self, namespace: &str, name: &str) -> Vec<(ClassRef, PodRef)> {
        let classes = self.classes.iter().filter(|(class, _)| class.namespace == namespace);
        let uses = classes.flat_map(|(class, pods)| pods.iter().map(move |pod| (class, pod)));
        uses.filter(|(_, pod)| pod.name == name).map(|(class, pod)| (class.clone(), pod.clone())).collect()
    }
}
