//! From an object of the API server to a class of ours.
//!
//! Pure. Takes any object, since one that is not as its schema says must not stop a watch; what is wrong becomes the
//! object's own fault. Keeps what we use: managed fields and other people's annotations go at once.

use kube::core::DynamicObject;

use crate::model::{ANNOTATION_PREFIX, Class, ClassRef, ClassSpec, Namespace, ResourceName};

/// A class, or why the object is none.
pub(super) type Entry = Result<Class, String>;

/// Name and content of an object; `None` for one without a name, which no server has.
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
