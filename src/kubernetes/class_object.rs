//! Parses a class from an object of the API server.
//!
//! Pure. Accepts any object: one that violates its schema must not stop the watch, and becomes an
//! error of this class. Keeps only what we use: managed fields and foreign annotations are dropped.

use kube::core::DynamicObject;

use crate::model::{ANNOTATION_PREFIX, Class, ClassRef, ClassSpec, Namespace, ResourceName};

/// A class, or why the object is invalid.
pub(super) type Entry = Result<Class, String>;

/// The class in an object; `None` without a valid name, which no API server sends.
pub(super) fn read(object: DynamicObject) -> Option<(ClassRef, Entry)> {
    let metadata = object.metadata;
    let namespace = Namespace::new(metadata.namespace?).ok()?;
    let reference = ClassRef { namespace, name: ResourceName::new(metadata.name?).ok()? };
    let class = ClassSpec::read(object.data.get("spec")).map(|spec| {
        let mut class = Class::new(reference.clone(), spec);
        class.version = metadata.resource_version.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        class.annotations = annotations.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect();
        class
    });
    Some((reference, class))
}
