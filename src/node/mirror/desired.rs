//! From one secretObject of a class and a volume's files to the Secret that is to be there.
//!
//! Pure. The rules are upstream's (docs/reference/csi-driver.md#secretobjects,
//! docs/reference/csi-driver.md#tls-secrets) with its faults mended (docs/differences.md); all that
//! is wrong becomes a [`Mistake`]. Whether and how the Secret is written is for `plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::files::Files;
use super::mistake::{Mistake, What};
use super::tls::{self, Opened, TlsError};
use crate::model::{
    Class, ExposeSecret as _, ResourceName, SecretBytes, SecretObject, annotations_fit, check_annotation, check_label,
    is_secret_key,
};

/// What a Secret holds at most (the API server's limit).
const LARGEST: usize = 1 << 20;

const OPAQUE: &str = "Opaque";
const TLS: &str = "kubernetes.io/tls";

/// A type that the API server asks keys of, and what it asks.
struct Rule {
    name: &'static str,
    /// The keys of which at least one is needed, for each need.
    needs: &'static [&'static [&'static str]],
    /// How the need is told.
    told: &'static [&'static str],
    /// The key that must hold a JSON object.
    json: Option<&'static str>,
}

const RULES: &[Rule] = &[
    Rule {
        name: TLS,
        needs: &[&[tls::CERTIFICATE], &[tls::PRIVATE_KEY]],
        told: &[tls::CERTIFICATE, tls::PRIVATE_KEY],
        json: None,
    },
    Rule {
        name: "kubernetes.io/dockerconfigjson",
        needs: &[&[".dockerconfigjson"]],
        told: &[".dockerconfigjson"],
        json: Some(".dockerconfigjson"),
    },
    Rule {
        name: "kubernetes.io/dockercfg",
        needs: &[&[".dockercfg"]],
        told: &[".dockercfg"],
        json: Some(".dockercfg"),
    },
    Rule {
        name: "kubernetes.io/basic-auth",
        needs: &[&["username", "password"]],
        told: &["username or password"],
        json: None,
    },
    Rule { name: "kubernetes.io/ssh-auth", needs: &[&["ssh-privatekey"]], told: &["ssh-privatekey"], json: None },
];

/// Files that were taken apart, or why they cannot be, by their paths.
pub(super) type OpenedFiles = BTreeMap<String, Arc<Result<Opened, TlsError>>>;

/// A Secret that is to be there.
#[derive(Debug)]
pub(super) struct Desired {
    /// Its name.
    pub(super) name: ResourceName,
    /// Its type.
    pub(super) r#type: String,
    /// Its labels, as the class has them.
    pub(super) labels: BTreeMap<String, String>,
    /// Its annotations, as the class has them.
    pub(super) annotations: BTreeMap<String, String>,
    /// Its data.
    pub(super) data: BTreeMap<String, SecretBytes>,
}

/// The files that a class's secretObjects are made of.
pub(super) fn files_of(class: &Class) -> BTreeSet<String> {
    let items = class.secret_objects.iter().flat_map(|object| &object.data);
    items.map(|item| item.object_name.trim().to_owned()).collect()
}

/// The name of the Secret that a secretObject is about.
pub(super) fn name_of(object: &SecretObject) -> &str {
    object.secret_name.trim()
}

/// The files that the secretObject `at` of a class wants taken apart.
pub(super) fn files_to_open(class: &Class, at: usize) -> impl Iterator<Item = &str> {
    let object = class.secret_objects.get(at).filter(|object| object.r#type.trim() == TLS);
    let items = object.into_iter().flat_map(|object| &object.data);
    items.filter(|item| is_part(item.key.trim())).map(|item| item.object_name.trim())
}

/// Whether a key of a Secret for TLS is made of a part of a file.
fn is_part(key: &str) -> bool {
    matches!(key, tls::CERTIFICATE | tls::PRIVATE_KEY | tls::AUTHORITY)
}

/// What the secretObject `at` of a class asks for; `opened` has its files that [have to be](files_to_open) taken apart.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn desired(class: &Class, at: usize, files: &Files, opened: &OpenedFiles) -> Result<Desired, Mistake> {
    let Some(object) = class.secret_objects.get(at) else {
        return Err(Mistake { class: class.reference.clone(), at, name: String::new(), what: What::DataMissing });
    };
    let name = name_of(object);
    let mistake = |what| Mistake { class: class.reference.clone(), at, name: name.to_owned(), what };
    if name.is_empty() {
        return Err(mistake(What::NameMissing));
    }
    let secret_name = ResourceName::new(name).map_err(|_| mistake(What::NameInvalid))?;
    if let Some(first) = class.secret_objects[..at].iter().position(|other| name_of(other) == name) {
        return Err(mistake(What::NameTwice(first)));
    }
    if object.data.is_empty() {
        return Err(mistake(What::DataMissing));
    }
    check_metadata(object).map_err(&mistake)?;
    let r#type = match object.r#type.trim() {
        "" => OPAQUE,
        r#type => r#type,
    };
    let rule = RULES.iter().find(|rule| rule.name == r#type);
    let data = data(object, r#type, rule, files, opened).map_err(&mistake)?;
    let bytes = data.values().map(|value| value.expose_secret().len()).sum();
    if bytes > LARGEST {
        return Err(mistake(What::TooLarge(bytes)));
    }
    Ok(Desired {
        name: secret_name,
        r#type: r#type.to_owned(),
        labels: object.labels.clone(),
        annotations: object.annotations.clone(),
        data,
    })
}

fn data(
    object: &SecretObject,
    r#type: &str,
    rule: Option<&Rule>,
    files: &Files,
    opened: &OpenedFiles,
) -> Result<BTreeMap<String, SecretBytes>, What> {
    let mut data = BTreeMap::new();
    for (at, item) in object.data.iter().enumerate() {
        let (name, key) = (item.object_name.trim(), item.key.trim());
        if name.is_empty() {
            return Err(What::ObjectNameMissing(at));
        }
        if key.is_empty() {
            return Err(What::KeyMissing(at));
        }
        if !is_secret_key(key) {
            return Err(What::KeyInvalid { at, key: key.to_owned() });
        }
        let Some(content) = files.contents.get(name) else {
            let files = files.names.iter().cloned().collect();
            return Err(What::FileMissing { at, name: name.to_owned(), files });
        };
        let content = content.expose_secret();
        let value = match r#type {
            TLS if is_part(key) => {
                // Not there, the file came to be just now; the next look has it.
                let missing = || What::FileMissing { at, name: name.to_owned(), files: Vec::new() };
                let opened = opened.get(name).ok_or_else(missing)?;
                let text = opened.as_ref().as_ref().map_err(Clone::clone).and_then(|opened| tls::value(key, opened));
                let mut text =
                    text.map_err(|source| What::Tls { at, key: key.to_owned(), name: name.to_owned(), source })?;
                // The buffer moves out of its wrapper, so that no copy is left to wipe.
                SecretBytes::from(std::mem::take(&mut *text).into_bytes())
            }
            _ => SecretBytes::from(content.to_vec()),
        };
        if let Some(rule) = rule.filter(|rule| rule.json == Some(key) && !is_json_object(content)) {
            return Err(What::NotJson { at, of: rule.name, name: name.to_owned() });
        }
        data.insert(key.to_owned(), value);
    }
    if let Some(rule) = rule {
        let missing = rule.needs.iter().position(|keys| !keys.iter().any(|key| data.contains_key(*key)));
        if let Some(missing) = missing {
            return Err(What::TypeNeeds { of: rule.name, key: rule.told[missing] });
        }
    }
    Ok(data)
}

/// What the API server would refuse of labels and annotations.
fn check_metadata(object: &SecretObject) -> Result<(), What> {
    for (key, value) in &object.labels {
        check_label(key, value).map_err(What::Label)?;
    }
    object.annotations.keys().try_for_each(|key| check_annotation(key)).map_err(What::Annotation)?;
    if annotations_fit(object.annotations.iter()) { Ok(()) } else { Err(What::AnnotationsTooLarge) }
}

fn is_json_object(content: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(content).is_ok()
}
