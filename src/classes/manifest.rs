//! Parses the classes in the text of one manifest file.
//!
//! Pure. Ignores other kinds and unused fields. What the API server would reject becomes an error
//! of this class, so that the other classes of the file remain usable.

use serde_json::{Map, Value};

use super::limits;
use crate::formats::yaml;
use crate::model::{ANNOTATION_PREFIX, Class, ClassRef, ClassSpec, Namespace, ResourceName, class_spec};

/// The content of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Manifest {
    pub(super) entries: Vec<Entry>,
    /// The mistake in a class with an invalid name; the other classes remain usable.
    pub(super) unnameable: Option<String>,
}

/// A class, or why it is invalid.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) reference: ClassRef,
    pub(super) class: Result<Class, String>,
}

const GROUP: &str = "secrets-store.csi.x-k8s.io";
const VERSIONS: &[&str] = &["v1", "v1alpha1"];
const KIND: &str = "SecretProviderClass";

/// Every SecretProviderClass in `text`: in its documents, and in their lists.
///
/// # Errors
/// The text is not YAML, or has a class without a name or more classes than [`limits::CLASSES`].
pub(super) fn parse(text: &str) -> Result<Manifest, String> {
    let mut manifest = Manifest::default();
    for document in yaml::documents(text).map_err(|error| error.to_string())? {
        let Value::Object(object) = document else { continue };
        match items(&object) {
            Some(items) => collect(items.iter().filter_map(Value::as_object), &mut manifest)?,
            None => collect(std::iter::once(&object), &mut manifest)?,
        }
    }
    Ok(manifest)
}

/// The items of a `List` or a `SecretProviderClassList`; `None` for any other kind.
fn items(object: &Map<String, Value>) -> Option<&[Value]> {
    let kind = object.get("kind")?.as_str()?;
    let list = kind == "List" || (kind == "SecretProviderClassList" && version(object).is_some());
    list.then(|| object.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice))
}

fn collect<'a>(objects: impl Iterator<Item = &'a Map<String, Value>>, manifest: &mut Manifest) -> Result<(), String> {
    for object in objects {
        if object.get("kind").and_then(Value::as_str) != Some(KIND) {
            continue;
        }
        if let Some(version) = version(object) {
            let (namespace, name) = names(object)?;
            match reference(&namespace, &name) {
                Ok(reference) => manifest.entries.push(entry(object, version, reference)),
                Err(wrong) => manifest.unnameable = Some(wrong),
            }
        }
        if manifest.entries.len() > limits::CLASSES {
            return Err(format!("it defines more than {} classes", limits::CLASSES));
        }
    }
    Ok(())
}

/// The API version of an object of our group; `None` for other groups.
fn version(object: &Map<String, Value>) -> Option<&str> {
    let (group, version) = object.get("apiVersion")?.as_str()?.split_once('/')?;
    (group == GROUP).then_some(version)
}

fn metadata<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get("metadata").and_then(|metadata| metadata.get(key))
}

/// Namespace and name of a class, as written.
fn names(object: &Map<String, Value>) -> Result<(String, String), String> {
    let name = match metadata(object, "name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        _ => {
            return Err(format!(
                "a {KIND} has no metadata.name that is text (a number or a word like yes must stand in quotes)"
            ));
        }
    };
    let namespace = match metadata(object, "namespace") {
        None | Some(Value::Null) => "default".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "default".to_owned(),
        Some(Value::String(namespace)) => namespace.clone(),
        Some(other) => {
            return Err(format!("metadata.namespace of the {KIND} {name:?} is {}, not text", class_spec::shape(other)));
        }
    };
    Ok((namespace, name))
}

/// The reference, if the API server would accept these names.
fn reference(namespace: &str, name: &str) -> Result<ClassRef, String> {
    let wrong = |field: &'static str| move |error| format!("metadata.{field} of a {KIND}: {error}");
    Ok(ClassRef {
        namespace: Namespace::new(namespace).map_err(wrong("namespace"))?,
        name: ResourceName::new(name).map_err(wrong("name"))?,
    })
}

fn entry(object: &Map<String, Value>, version: &str, reference: ClassRef) -> Entry {
    let class = if VERSIONS.contains(&version) {
        ClassSpec::read(object.get("spec")).map(|spec| {
            let ours = metadata(object, "annotations").and_then(Value::as_object).into_iter().flatten();
            let ours = ours.filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
            let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            Class { annotations: ours.filter_map(text).collect(), ..Class::new(reference.clone(), spec) }
        })
    } else {
        Err(format!("apiVersion {GROUP}/{} is not known: use {GROUP}/v1", class_spec::cut(version)))
    };
    Entry { reference, class }
}
