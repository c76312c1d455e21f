//! Pure. Names as the Kubernetes API accepts them: object names, namespaces, UIDs, keys and values
//! of labels.
//!
//! Every name that enters a URL of the API server, or an object that is sent there, is one of these
//! types or passed one of these checks. Tenants write most of them, and `kube` puts them into paths
//! as they are. The rules are those of k8s.io/apimachinery, `pkg/util/validation` and
//! `pkg/api/validation`.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// The longest DNS subdomain (RFC 1123), and the longest key of a Secret.
const SUBDOMAIN: usize = 253;
/// The longest DNS label (RFC 1123), the longest name part of a label's key, and the longest value
/// of a label.
const LABEL: usize = 63;
/// The most bytes of all annotations of one object, keys and values together.
const ANNOTATIONS: usize = 256 << 10;
/// How much of a refused text an error shows, in characters.
const SHOWN: usize = 64;

/// A text that is not a name: shows its beginning, and the rule that it breaks. The error around it
/// names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not {rule}")]
pub struct InvalidName {
    /// The beginning of the text.
    shown: String,
    /// What it should be, and how that looks.
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// The rule that it breaks.
            pub fn new(text: impl Into<String>) -> Result<$name, InvalidName> {
                let text = text.into();
                let is: fn(&str) -> bool = $check;
                if is(&text) { Ok($name(text)) } else { Err(refused(&text, $rule)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<$name, InvalidName> {
                $name::new(text)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The name of a pod, class, status, Secret, service account or node: a DNS subdomain.
    ResourceName,
    is_subdomain,
    "the name of a Kubernetes object: use at most 253 lower-case letters, digits, '-' and '.', and begin and end each part between dots with a letter or digit"
);

name!(
    /// The name of a namespace: a DNS label.
    Namespace,
    is_label,
    "the name of a namespace: use at most 63 lower-case letters, digits and '-', and begin and end with a letter or digit"
);

name!(
    /// The UID of an object. The API server generates UUIDs, but accepts any text in an owner
    /// reference.
    Uid,
    is_uid,
    "the UID of an object: at most 63 letters, digits and '-'"
);

/// Whether `text` is a key of a Secret's data: at most 253 letters, digits, `-`, `_` and `.`,
/// neither `.` nor with `..` at the beginning.
pub fn is_secret_key(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=SUBDOMAIN).contains(&text.len()) && text.bytes().all(allowed) && text != "." && !text.starts_with("..")
}

/// Checks the key and the value of a label.
///
/// # Errors
/// The first rule that one of the two breaks.
pub fn check_label(key: &str, value: &str) -> Result<(), InvalidName> {
    check_key(key, is_qualified)?;
    let rule = "the value of a label: use at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or digit";
    if value.is_empty() || is_word(value) { Ok(()) } else { Err(refused(value, rule)) }
}

/// Checks the key of an annotation; its value may be any text. Unlike in a label, the DNS name may
/// have capitals.
///
/// # Errors
/// The rule that it breaks.
pub fn check_annotation(key: &str) -> Result<(), InvalidName> {
    check_key(key, |key| is_qualified(&key.to_ascii_lowercase()))
}

/// Whether annotations with these keys and values fit into one object together.
pub fn annotations_fit<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> bool {
    pairs.map(|(key, value)| key.len() + value.len()).sum::<usize>() <= ANNOTATIONS
}

fn check_key(key: &str, is: impl Fn(&str) -> bool) -> Result<(), InvalidName> {
    let rule = "the key of a label or annotation: use at most 63 letters, digits, '-', '_' and '.' with a letter or digit at both ends, and before them perhaps a DNS name and '/'";
    if is(key) { Ok(()) } else { Err(refused(key, rule)) }
}

fn refused(text: &str, rule: &'static str) -> InvalidName {
    InvalidName { shown: text.chars().take(SHOWN).collect(), rule }
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, of any length.
fn is_part(text: &str) -> bool {
    let (first, last) = (text.bytes().next(), text.bytes().next_back());
    first.is_some_and(is_lower) && last.is_some_and(is_lower) && text.bytes().all(|byte| is_lower(byte) || byte == b'-')
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL && is_part(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN && text.split('.').all(is_part)
}

fn is_uid(text: &str) -> bool {
    (1..=LABEL).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`, at most [`LABEL`].
fn is_word(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= LABEL && ends(text.bytes().next()) && ends(text.bytes().next_back()) && text.bytes().all(allowed)
}

/// A word, perhaps with a DNS subdomain and a slash in front.
fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, word)) => is_subdomain(prefix) && is_word(word),
        None => is_word(text),
    }
}
