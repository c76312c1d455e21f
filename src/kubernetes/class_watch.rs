//! The watch of the classes in all namespaces, which fills the cache in `classes`.

use std::collections::HashMap;

use kube::core::DynamicObject;

use super::class_object::{self, Entry};
use super::classes::ClassCache;
use super::resources;
use super::watch::{self, Followed, Sink};
use crate::model::ClassRef;

impl ClassCache {
    /// Keeps the cache up to date; never returns.
    pub async fn follow(self) {
        let followed = Followed::all(
            resources::classes(),
            "each class is read when it is needed",
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

    fn replace_all(&self, entries: HashMap<ClassRef, Entry>) {
        self.replace(entries);
    }

    fn changed(&self, class: ClassRef, entry: Option<Entry>) {
        self.update(class, entry);
    }

    fn set_live(&self, live: bool) {
        self.set_watched(live);
    }
}
