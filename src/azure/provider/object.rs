//! One object of a class: from its YAML to a checked [`ObjectSpec`].
//!
//! Pure. Finds every mistake of an object, not only the first. The fields are those of
//! docs/reference/azure-provider.md#object-fields, stricter where upstream passes a mistake on to
//! the vault or to the file system.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::limits::SHOWN;
use super::mistake::{FIELDS, Mistake, ObjectLabel, invalid_character, near_misses, shown, with_hint};
use crate::formats::yaml;
use crate::model::{FileMode, FileName};

/// The type of a Key Vault object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectType {
    /// A secret; also the way to a certificate's private key and chain.
    Secret,
    /// The public half of a key.
    Key,
    /// A certificate without its private key.
    Certificate,
}

impl ObjectType {
    /// The word in classes and in object version ids.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectType::Secret => "secret",
            ObjectType::Key => "key",
            ObjectType::Certificate => "cert",
        }
    }
}

/// Which version of an object is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// The current one: `objectVersion` absent, empty or `latest`.
    Latest,
    /// This one: 32 hex digits as written.
    Pinned(String),
}

/// The form of a certificate's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PEM, the default.
    Pem,
    /// PKCS#12.
    Pfx,
}

/// How the bytes of a file are encoded in the secret's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The value as it is, the default.
    Utf8,
    /// Standard base64.
    Base64,
    /// Hex digits.
    Hex,
}

/// A checked object of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSpec {
    /// The type.
    pub object_type: ObjectType,
    /// Its name in the vault: 1 to 127 ASCII letters, digits and `-`.
    pub name: String,
    /// Which version.
    pub version: Version,
    /// `objectVersionHistory` as written; up to 1, also below zero, means a single version.
    pub history: i32,
    /// The form of a certificate's secret; `Pfx` only with [`ObjectType::Secret`].
    pub format: Format,
    /// The encoding of the value; other than `Utf8` only with [`ObjectType::Secret`].
    pub encoding: Encoding,
    /// The file's mode; `None` for the default of the mount.
    pub mode: Option<FileMode>,
    /// Where the file goes: the alias, or the name. In history mode a directory.
    pub file: FileName,
}

impl ObjectSpec {
    /// Whether several versions are asked for (docs/reference/azure-provider.md#versions).
    pub fn has_history(&self) -> bool {
        self.history > 1
    }

    /// The id of the object's version in statuses; `index` is that of the file in history mode.
    ///
    /// Alias and version are not part of it (docs/reference/azure-provider.md#version-ids).
    pub fn version_id(&self, index: Option<usize>) -> String {
        let id = format!("{}/{}", self.object_type.as_str(), self.name);
        match index {
            None => id,
            Some(index) => format!("{id}/{index}"),
        }
    }
}

/// The object as written; every scalar keeps its source text.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    object_name: Option<String>,
    object_alias: Option<String>,
    object_type: Option<String>,
    object_version: Option<String>,
    object_version_history: Option<yaml::Integer>,
    object_format: Option<String>,
    object_encoding: Option<String>,
    file_permission: Option<String>,
}

/// Parses the text of one object; `number` is its place in the class, counted from 1.
///
/// An absent or empty text is an object without fields, as in upstream.
///
/// # Errors
/// Every mistake of the object, each with its field and a fix. YAML that cannot be read is a single
/// one.
pub(super) fn parse(number: usize, text: Option<&str>) -> Result<ObjectSpec, Vec<Mistake>> {
    let text = text.unwrap_or_default();
    let raw = yaml::from_str::<Raw>(text).map_err(|error| vec![unreadable(number, text, &error)])?.unwrap_or_default();
    let mut mistakes = Vec::new();
    let name = trimmed(&raw.object_name);
    let object_type = take(&mut mistakes, parse_type(trimmed(&raw.object_type)));
    let format = take(&mut mistakes, parse_format(trimmed(&raw.object_format), object_type));
    let encoding = take(&mut mistakes, parse_encoding(trimmed(&raw.object_encoding), object_type));
    let checked_name = take(&mut mistakes, parse_name(name, text));
    let version = take(&mut mistakes, parse_version(trimmed(&raw.object_version)));
    let history = take(&mut mistakes, parse_history(raw.object_version_history));
    let mode = take(&mut mistakes, parse_mode(trimmed(&raw.file_permission)));
    let alias = trimmed(&raw.object_alias);
    // A name that is wrong in itself is one mistake, not also a wrong file name.
    let file = match (alias, checked_name) {
        ("", None) => None,
        ("", Some(name)) => take(&mut mistakes, parse_file("objectName", name)),
        (alias, _) => take(&mut mistakes, parse_file("objectAlias", alias)),
    };
    if let (
        Some(object_type),
        Some(format),
        Some(encoding),
        Some(name),
        Some(version),
        Some(history),
        Some(mode),
        Some(file),
    ) = (object_type, format, encoding, checked_name, version, history, mode, file)
    {
        return Ok(ObjectSpec { object_type, name: name.to_owned(), version, history, format, encoding, mode, file });
    }
    let label = ObjectLabel { number, name: label(trimmed(&raw.object_type), name, alias) };
    Err(mistakes.into_iter().map(|mistake| Mistake { object: Some(label.clone()), ..mistake }).collect())
}

/// The object's type and name, or alias, as far as they are present.
fn label(object_type: &str, name: &str, alias: &str) -> String {
    let plain = |word: &str| {
        let simple = word.len() <= SHOWN && word.chars().all(|c| c.is_ascii_graphic());
        if simple { word.to_owned() } else { shown(word) }
    };
    let words = [object_type, if name.is_empty() { alias } else { name }];
    words.into_iter().filter(|word| !word.is_empty()).map(plain).collect::<Vec<_>>().join(" ")
}

fn trimmed(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default().trim()
}

/// The value; an error is added to the mistakes.
fn take<T>(mistakes: &mut Vec<Mistake>, outcome: Result<T, Mistake>) -> Option<T> {
    outcome.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn unreadable(number: usize, text: &str, error: &yaml::Error) -> Mistake {
    let scalar = matches!(yaml::from_str::<serde_json::Value>(text), Ok(Some(value)) if !value.is_object());
    let wrong = match scalar {
        true => "is not a mapping".to_owned(),
        false => format!("cannot be read as YAML, {error}"),
    };
    let label = ObjectLabel { number, name: String::new() };
    let fix = "write it as `- |` with the lines `objectName: …` and `objectType: …` indented below it";
    Mistake { object: Some(label), ..Mistake::new("its text", wrong, fix) }
}

fn parse_type(text: &str) -> Result<ObjectType, Mistake> {
    let all = [ObjectType::Secret, ObjectType::Key, ObjectType::Certificate];
    if let Some(object_type) = all.into_iter().find(|object_type| object_type.as_str() == text) {
        return Ok(object_type);
    }
    let wrong = match text {
        "" => "is not set".to_owned(),
        other => format!("{} is not an object type", shown(other)),
    };
    Err(Mistake::new("objectType", wrong, "use secret, key or cert, in lower case"))
}

/// Without a known type, the rules between fields are not checked.
fn parse_format(text: &str, object_type: Option<ObjectType>) -> Result<Format, Mistake> {
    let format = match text.to_ascii_lowercase().as_str() {
        "" | "pem" => Format::Pem,
        "pfx" => Format::Pfx,
        _ => {
            let wrong = format!("{} is not a format", shown(text));
            return Err(Mistake::new("objectFormat", wrong, "use pem or pfx"));
        }
    };
    match (format, object_type) {
        (Format::Pfx, Some(other @ (ObjectType::Key | ObjectType::Certificate))) => {
            let wrong = format!("is pfx, but objectType is {}", other.as_str());
            Err(Mistake::new(
                "objectFormat",
                wrong,
                "leave it out, or use objectType secret for the certificate with its key",
            ))
        }
        (Format::Pem | Format::Pfx, _) => Ok(format),
    }
}

fn parse_encoding(text: &str, object_type: Option<ObjectType>) -> Result<Encoding, Mistake> {
    let encoding = match text.to_ascii_lowercase().as_str() {
        "" => return Ok(Encoding::Utf8),
        "utf-8" => Encoding::Utf8,
        "base64" => Encoding::Base64,
        "hex" => Encoding::Hex,
        _ => {
            let wrong = format!("{} is not an encoding", shown(text));
            return Err(Mistake::new("objectEncoding", wrong, "use utf-8, base64 or hex"));
        }
    };
    match object_type {
        Some(other @ (ObjectType::Key | ObjectType::Certificate)) => {
            let wrong = format!("is set, but objectType is {}", other.as_str());
            Err(Mistake::new("objectEncoding", wrong, "leave it out; only secrets have an encoding"))
        }
        Some(ObjectType::Secret) | None => Ok(encoding),
    }
}

/// Key Vault's own rule, which also keeps a name from changing the path of a request.
fn parse_name<'a>(text: &'a str, object: &str) -> Result<&'a str, Mistake> {
    let fix = "use the object's name in the vault: 1 to 127 ASCII letters, digits and '-'";
    if text.is_empty() {
        let keys = yaml::from_str::<BTreeMap<String, IgnoredAny>>(object).ok().flatten().unwrap_or_default();
        return Err(Mistake::new(
            "objectName",
            "is not set",
            with_hint(fix, "objectName", &near_misses(&keys, FIELDS)),
        ));
    }
    if let Some(wrong) = invalid_character(text, |c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Mistake::new("objectName", wrong, fix));
    }
    if text.len() > 127 {
        return Err(Mistake::new("objectName", format!("is {} characters long", text.len()), fix));
    }
    Ok(text)
}

fn parse_version(text: &str) -> Result<Version, Mistake> {
    if matches!(text, "" | "latest") {
        return Ok(Version::Latest);
    }
    let fix = "use the 32 hex digits of the version in quotes, or leave it out for the latest";
    if let Some(wrong) = invalid_character(text, |c| c.is_ascii_hexdigit()) {
        return Err(Mistake::new("objectVersion", wrong, fix));
    }
    if text.len() != 32 {
        return Err(Mistake::new("objectVersion", format!("is {} characters long", text.len()), fix));
    }
    Ok(Version::Pinned(text.to_owned()))
}

fn parse_history(field: Option<yaml::Integer>) -> Result<i32, Mistake> {
    let fix = "write a whole number without quotes, for example 2";
    field.map_or(Ok(0), |number| number.0.map_err(|wrong| Mistake::new("objectVersionHistory", wrong, fix)))
}

/// Octal text as Go's `ParseInt` accepts it with base 8, but without a minus and not above 0777.
///
/// Upstream turns what is not octal into mode 0, which makes the file unreadable
/// (docs/reference/azure-provider.md#file-modes).
fn parse_mode(text: &str) -> Result<Option<FileMode>, Mistake> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    let fix = "write the mode as octal text in quotes, for example \"0644\"; some tools turn an unquoted 0644 into 420";
    if digits.is_empty() || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
        return Err(Mistake::new("filePermission", format!("{} is not octal", shown(text)), fix));
    }
    match u32::from_str_radix(digits, 8).ok().and_then(FileMode::new) {
        Some(mode) => Ok(Some(mode)),
        None => Err(Mistake::new("filePermission", format!("{} is above 0777", shown(text)), fix)),
    }
}

/// The rules of the volume, and upstream's own: no `..` anywhere, not even within a word
/// (docs/reference/azure-provider.md#file-names).
fn parse_file(field: &'static str, text: &str) -> Result<FileName, Mistake> {
    let fix = "use a plain relative path below the mount, such as db/password";
    if text.contains("..") {
        return Err(Mistake::new(field, format!("{} contains \"..\"", shown(text)), fix));
    }
    FileName::new(text).map_err(|error| Mistake::new(field, format!("{} cannot be used, {error}", shown(text)), fix))
}
