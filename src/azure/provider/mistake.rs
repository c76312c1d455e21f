//! Mistakes in classes, in words that say what to change.
//!
//! Has the words and their limits; `params` and `object` find the mistakes. Parameter values are
//! not secret and may be shown, but only truncated and with control characters escaped, since they
//! reach events and terminals.

use std::collections::BTreeMap;
use std::fmt;

use super::limits::{LISTED, SHOWN};

/// The parameters of a class: upstream's (docs/reference/azure-provider.md#parameters), and our own
/// (docs/differences.md).
pub(super) const PARAMETERS: &[&str] = &[
    "keyvaultName",
    "tenantID",
    "tenantId",
    "objects",
    "usePodIdentity",
    "useVMManagedIdentity",
    "useAzureTokenProxy",
    "userAssignedIdentityID",
    "clientID",
    "cloudName",
    "cloudEnvFileName",
];

/// The fields of an object (docs/reference/azure-provider.md#object-fields).
pub(super) const FIELDS: &[&str] = &[
    "objectName",
    "objectAlias",
    "objectType",
    "objectVersion",
    "objectVersionHistory",
    "objectFormat",
    "objectEncoding",
    "filePermission",
];

/// Which object of a class a mistake or an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectLabel {
    /// The place of the object in the class, counted from 1.
    pub number: usize,
    /// Type and name, as far as they can be read; ready to be shown, and possibly empty.
    pub name: String,
}

impl fmt::Display for ObjectLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "object {}", self.number),
            name => write!(f, "object {} ({name})", self.number),
        }
    }
}

/// One thing to change in a class.
///
/// Reads as `object 2 (secret db-pass): objectEncoding "utf-16" is not an encoding: use utf-8,
/// base64 or hex`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The object the field belongs to; `None` for a parameter of the class.
    pub object: Option<ObjectLabel>,
    /// The parameter or field as it is spelt in a class.
    pub field: &'static str,
    /// What is wrong with its value.
    pub wrong: String,
    /// What to do about it.
    pub fix: String,
}

impl Mistake {
    /// A mistake in a parameter of the class.
    pub(super) fn new(field: &'static str, wrong: impl Into<String>, fix: impl Into<String>) -> Mistake {
        Mistake { object: None, field, wrong: wrong.into(), fix: fix.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        write!(f, "{} {}: {}", self.field, self.wrong, self.fix)
    }
}

/// All mistakes of one class, at least one, in the order in which upstream checks
/// (docs/reference/azure-provider.md#order-of-checks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    all: Vec<Mistake>,
}

impl Mistakes {
    /// `None` if the list is empty.
    pub fn new(all: Vec<Mistake>) -> Option<Mistakes> {
        (!all.is_empty()).then_some(Mistakes { all })
    }

    /// The mistakes, in the order of the checks.
    pub fn all(&self) -> &[Mistake] {
        &self.all
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.all.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} mistakes:", self.all.len())?;
        for (at, mistake) in self.all.iter().take(LISTED).enumerate() {
            let end = if at + 1 == self.all.len() { "" } else { ";" };
            write!(f, " ({}) {mistake}{end}", at + 1)?;
        }
        match self.all.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A key that is ignored because only its upper and lower case differ from a known one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// The key in the class.
    pub given: String,
    /// The key that was probably meant.
    pub known: &'static str,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is ignored, the name is spelt {}", self.given, self.known)
    }
}

/// The keys among `given` that differ from one of `known` only by case, while that one is absent.
pub(super) fn near_misses<'a, V>(given: &'a BTreeMap<String, V>, known: &'static [&'static str]) -> Vec<NearMiss> {
    let is_near = |key: &'a String| {
        let meant = known.iter().find(|known| known.eq_ignore_ascii_case(key))?;
        let spelt = known.contains(&key.as_str()) || given.contains_key(*meant);
        (!spelt).then(|| NearMiss { given: key.clone(), known: meant })
    };
    given.keys().filter_map(is_near).collect()
}

/// `fix`, with a hint about a misspelt key if there is one for `field`.
pub(super) fn with_hint(fix: &str, field: &str, near: &[NearMiss]) -> String {
    match near.iter().find(|miss| miss.known.eq_ignore_ascii_case(field)) {
        Some(miss) => format!("{fix} ({miss})"),
        None => fix.to_owned(),
    }
}

/// A value as messages show it: in quotes, truncated to [`SHOWN`] characters, control characters
/// escaped.
pub(super) fn shown(value: &str) -> String {
    let cut = value.chars().nth(SHOWN).is_some();
    let text: String = value.chars().take(SHOWN).collect();
    format!("{text:?}{}", if cut { "…" } else { "" })
}

/// Which character of `value` is not allowed, with a hint if the value looks like a placeholder.
pub(super) fn invalid_character(value: &str, allowed: impl Fn(char) -> bool) -> Option<String> {
    let bad = value.chars().find(|c| !allowed(*c))?;
    let placeholder = value.starts_with('<') || value.starts_with("${") || value.starts_with("{{");
    let hint = if placeholder { ", it looks like a placeholder that was not filled in" } else { "" };
    Some(format!("{} contains {bad:?}{hint}", shown(value)))
}
