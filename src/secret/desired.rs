//! Builds the content that a secretObject asks for from files.
//!
//! Pure. The rules are upstream's (docs/reference/csi-driver.md#secretobjects,
//! docs/reference/csi-driver.md#tls-secrets) without its bugs (docs/differences.md); what is wrong
//! becomes a [`Mistake`]. `plan` decides whether the content is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::mistake::Mistake;
use super::tls::{self, Opened, TlsError};
use crate::model::{
    ExposeSecret as _, ResourceName, SecretBytes, SecretObject, annotations_fit, check_annotation, check_label,
    is_secret_key,
};

/// The most bytes in the values of a Secret (the API server's limit).
const LARGEST: usize = 1 << 20;

const OPAQUE: &str = "Opaque";
const TLS: &str = "kubernetes.io/tls";

/// A type whose keys the API server validates.
struct TypeRule {
    name: &'static str,
    /// For each requirement, the keys of which at least one must exist.
    required: &'static [&'static [&'static str]],
    /// Each requirement as a message names it.
    described: &'static [&'static str],
    /// The key that must contain a JSON object.
    json: Option<&'static str>,
}

const TYPE_RULES: &[TypeRule] = &[
    TypeRule {
        name: TLS,
        required: &[&[tls::CERTIFICATE], &[tls::PRIVATE_KEY]],
        described: &[tls::CERTIFICATE, tls::PRIVATE_KEY],
        json: None,
    },
    TypeRule {
        name: "kubernetes.io/dockerconfigjson",
        required: &[&[".dockerconfigjson"]],
        described: &[".dockerconfigjson"],
        json: Some(".dockerconfigjson"),
    },
    TypeRule {
        name: "kubernetes.io/dockercfg",
        required: &[&[".dockercfg"]],
        described: &[".dockercfg"],
        json: Some(".dockercfg"),
    },
    TypeRule {
        name: "kubernetes.io/basic-auth",
        required: &[&["username", "password"]],
        described: &["username or password"],
        json: None,
    },
    TypeRule {
        name: "kubernetes.io/ssh-auth",
        required: &[&["ssh-privatekey"]],
        described: &["ssh-privatekey"],
        json: None,
    },
];

/// The files that Secrets are built from.
#[derive(Debug)]
pub(crate) struct Files {
    /// The path of every file.
    pub(crate) names: BTreeSet<String>,
    /// The content of the files that [`file_names`] lists, where they exist.
    pub(crate) contents: BTreeMap<String, SecretBytes>,
}

/// By path: files that were taken apart, or why they could not be.
pub(super) type OpenedFiles = BTreeMap<String, Arc<Result<Opened, TlsError>>>;

/// The content that a secretObject asks for.
#[derive(Debug)]
pub(crate) struct DesiredContent {
    pub(super) r#type: String,
    /// As the secretObject has them.
    pub(super) labels: BTreeMap<String, String>,
    /// As the secretObject has them.
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: BTreeMap<String, SecretBytes>,
}

/// The files that these secretObjects are built from.
pub(crate) fn file_names(objects: &[SecretObject]) -> BTreeSet<String> {
    let items = objects.iter().flat_map(|object| &object.data);
    items.map(|item| item.object_name.trim().to_owned()).collect()
}

/// The name of the Secret that a secretObject asks for.
///
/// # Errors
/// The name is empty or invalid.
pub(crate) fn secret_name(object: &SecretObject) -> Result<ResourceName, Mistake> {
    match object.secret_name.trim() {
        "" => Err(Mistake::NameMissing),
        name => ResourceName::new(name).map_err(|_| Mistake::NameInvalid),
    }
}

/// The files of a secretObject that have to be taken apart.
pub(super) fn files_to_open(object: &SecretObject) -> impl Iterator<Item = &str> {
    let items = object.data.iter().filter(|_| object.r#type.trim() == TLS);
    items.filter(|item| is_part(item.key.trim())).map(|item| item.object_name.trim())
}

/// Whether the value of this key of a TLS Secret is a part of a file.
fn is_part(key: &str) -> bool {
    matches!(key, tls::CERTIFICATE | tls::PRIVATE_KEY | tls::AUTHORITY)
}

/// The content that a secretObject asks for; `opened` has the files of [`files_to_open`].
///
/// # Errors
/// The first mistake in the secretObject.
pub(super) fn build(object: &SecretObject, files: &Files, opened: &OpenedFiles) -> Result<DesiredContent, Mistake> {
    if object.data.is_empty() {
        return Err(Mistake::DataMissing);
    }
    check_metadata(object)?;
    let r#type = match object.r#type.trim() {
        "" => OPAQUE,
        r#type => r#type,
    };
    let data = data(object, r#type, files, opened)?;
    let bytes = data.values().map(|value| value.expose_secret().len()).sum();
    if bytes > LARGEST {
        return Err(Mistake::TooLarge(bytes));
    }
    Ok(DesiredContent {
        r#type: r#type.to_owned(),
        labels: object.labels.clone(),
        annotations: object.annotations.clone(),
        data,
    })
}

fn data(
    object: &SecretObject,
    r#type: &str,
    files: &Files,
    opened: &OpenedFiles,
) -> Result<BTreeMap<String, SecretBytes>, Mistake> {
    let rule = TYPE_RULES.iter().find(|rule| rule.name == r#type);
    let mut data = BTreeMap::new();
    for (item, entry) in object.data.iter().enumerate() {
        let (name, key) = (entry.object_name.trim(), entry.key.trim());
        if name.is_empty() {
            return Err(Mistake::ObjectNameMissing(item));
        }
        if key.is_empty() {
            return Err(Mistake::KeyMissing(item));
        }
        if !is_secret_key(key) {
            return Err(Mistake::KeyInvalid { item, key: key.to_owned() });
        }
        let Some(content) = files.contents.get(name) else {
            let files = files.names.iter().cloned().collect();
            return Err(Mistake::FileMissing { item, name: name.to_owned(), files });
        };
        let content = content.expose_secret();
        let value = match r#type {
            TLS if is_part(key) => part(item, key, name, opened)?,
            _ => SecretBytes::from(content.to_vec()),
        };
        if let Some(rule) = rule.filter(|rule| rule.json == Some(key) && !is_json_object(content)) {
            return Err(Mistake::NotJson { item, of: rule.name, name: name.to_owned() });
        }
        data.insert(key.to_owned(), value);
    }
    if let Some(rule) = rule {
        let missing = rule.required.iter().position(|keys| !keys.iter().any(|key| data.contains_key(*key)));
        if let Some(missing) = missing {
            return Err(Mistake::TypeNeeds { of: rule.name, key: rule.described[missing] });
        }
    }
    Ok(data)
}

/// The part of the file `name` that belongs under `key`.
fn part(item: usize, key: &str, name: &str, opened: &OpenedFiles) -> Result<SecretBytes, Mistake> {
    // The file appeared after the others were taken apart; the next reconcile has it.
    let missing = || Mistake::FileMissing { item, name: name.to_owned(), files: Vec::new() };
    let file = opened.get(name).ok_or_else(missing)?;
    let text = file.as_ref().as_ref().map_err(Clone::clone).and_then(|file| tls::value(key, file));
    let mut text = text.map_err(|source| Mistake::Tls { item, key: key.to_owned(), name: name.to_owned(), source })?;
    // Moves the buffer out of its wrapper, so that no copy has to be wiped.
    Ok(SecretBytes::from(std::mem::take(&mut *text).into_bytes()))
}

/// Checks labels and annotations by the API server's rules.
fn check_metadata(object: &SecretObject) -> Result<(), Mistake> {
    for (key, value) in &object.labels {
        check_label(key, value).map_err(Mistake::Label)?;
    }
    object.annotations.keys().try_for_each(|key| check_annotation(key)).map_err(Mistake::Annotation)?;
    if annotations_fit(object.annotations.iter()) { Ok(()) } else { Err(Mistake::AnnotationsTooLarge) }
}

fn is_json_object(content: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(content).is_ok()
}
