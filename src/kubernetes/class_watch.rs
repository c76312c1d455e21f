//! Keeps the classes of all namespaces in step with the server.
//!
//! `watch` lists and watches; each object is trimmed by `class_object` as it comes. Fills `classes`; what a class means is
//! not known here.

use std::collections::HashMap;

use kube::core::DynamicObject;

use super::class_object::{self, Entry};
use super::classes::{ClassCache, resource};
use super::watch::{self, Followed, Sink};
use crate::model::ClassRef;

impl ClassCache {
    /// Keeps the cache in step with the server, for ever.
    pub async fn follow(self) {
        let followed = Followed::all(
            resource(),
            "each class is asked for when it is needed",
            "grant get, list and watch on secretproviderclasses of secrets-store.csi.x-k8s.io (ClusterRole secretproviderclasses-role)",
        );
        watch::follow(self.connection.clone(), followed, self).await;
    }
}

impl Sink for ClassCache {
    type Key = ClassRef;
    type Entry = Entry;

    fn read(&self, object: DynamicObject) -> Option<(ClassRef, Entry)> {
        class_object::read(object)
    }

    fn listed(&self, entries: HashMap<ClassRef, Entry>) {
        self.all(entries);
    }

    fn changed(&self, class: ClassRef, entry: Option<Entry>) {
        self.one(class, entry);
    }

    fn live(&self, live: bool) {
        self.followed(live);
    }
}
