//! Decides what has to change in a stored Secret so that it is what a secretObject asks for.
//!
//! Pure. Decides whether the Secret is ours, which content is newer, and which owners are missing
//! (docs/decisions.md#d14); `writer` sends the requests.
//!
//! # Guarantees
//! A Secret without the manager's label is never changed. The plan for an up-to-date Secret is
//! empty.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::desired::DesiredContent;
use crate::kubernetes::{KeyedField, ManagedFields, Ownership, SecretManager, SecretRef, StoredSecret};
use crate::model::{ANNOTATION_PREFIX, ExposeSecret as _, Owner, SecretBytes};

/// The annotation with the class that a Secret is written for.
const CLASS: &str = "keyvault-csi/class";
/// The annotation with the time at which the files of the content were written.
const CONTENT_TIME: &str = "keyvault-csi/content-time";

/// How far the clocks of two nodes may differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A Secret that a class asks for.
#[derive(Debug)]
pub(crate) struct DesiredSecret {
    pub(crate) reference: SecretRef,
    /// The name of the class.
    pub(crate) class: String,
    pub(crate) content: DesiredContent,
    /// When the files of the content were written.
    pub(crate) content_time: Timestamp,
    pub(crate) owners: Owners,
}

/// The owners of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owners {
    /// These, and those that other nodes add.
    Shared(Vec<Owner>),
    /// None: the Secret stays after the last pod.
    None,
}

/// What to change in a Secret, in this order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Plan {
    /// Set the managed fields, so that an apply removes keys that drivers set by an Update.
    pub(super) take_over: Option<ManagedFields>,
    /// Apply our content, with this content time.
    pub(super) content: Option<Timestamp>,
    pub(super) owners: OwnerChange,
    /// Another node wrote newer content, which stays.
    pub(super) newer: bool,
}

/// What to change in the owner references.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum OwnerChange {
    #[default]
    Keep,
    /// Add these, one apply each.
    Add(Vec<Owner>),
    /// Replace all: some stored owners no longer exist, or there should be none.
    Replace(Vec<Owner>),
}

/// Why a Secret must not be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is being deleted.
    Terminating,
    /// It lacks the manager's label.
    NotManaged { label: (&'static str, &'static str) },
    /// The type of a Secret is immutable.
    OtherType { stored: String, desired: String },
    /// It belongs to another class that asks for other content.
    OtherClass(String),
}

impl Plan {
    /// Whether anything has to be written.
    pub(super) fn writes(&self) -> bool {
        self.take_over.is_some() || self.content.is_some() || self.owners != OwnerChange::Keep
    }
}

impl DesiredSecret {
    pub(super) fn labels(&self, manager: &SecretManager) -> BTreeMap<String, String> {
        let mut labels = self.content.labels.clone();
        let (key, value) = manager.label;
        labels.insert(key.to_owned(), value.to_owned());
        labels
    }

    pub(super) fn annotations(&self, content_time: Timestamp) -> BTreeMap<String, String> {
        let mut annotations = self.content.annotations.clone();
        annotations.insert(CLASS.to_owned(), self.class.clone());
        annotations.insert(CONTENT_TIME.to_owned(), content_time.to_string());
        annotations
    }

    /// A digest of everything that would be written, except the time; kept in memory only.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        // Each piece with its length, so that different lists of pieces never join to the same
        // text.
        let mut add = |piece: &[u8]| {
            digest.update((piece.len() as u64).to_be_bytes());
            digest.update(piece);
        };
        add(self.class.as_bytes());
        add(self.content.r#type.as_bytes());
        for pairs in [&self.content.labels, &self.content.annotations] {
            add(&pairs.len().to_be_bytes());
            pairs.iter().for_each(|(key, value)| [key, value].into_iter().for_each(|text| add(text.as_bytes())));
        }
        for (key, value) in &self.content.data {
            add(key.as_bytes());
            add(value.expose_secret());
        }
        match &self.owners {
            Owners::Shared(owners) => owners.iter().for_each(|owner| add(owner.uid.as_bytes())),
            Owners::None => add(b"none"),
        }
        digest.finalize().into()
    }
}

fn is_same(stored: Option<&SecretBytes>, desired: &SecretBytes) -> bool {
    stored.is_some_and(|stored| stored.expose_secret() == desired.expose_secret())
}

/// The changes from `stored` to `desired`. `abandoned` says that the class in the Secret's
/// annotation no longer asks for it.
///
/// # Errors
/// The Secret must not be changed.
pub(super) fn plan(
    manager: &SecretManager,
    desired: &DesiredSecret,
    stored: &StoredSecret,
    abandoned: bool,
    now: Timestamp,
) -> Result<Plan, Refusal> {
    check_writable(manager, desired, stored)?;
    let found = Comparison::new(manager, desired, stored);
    let other_class = stored.annotations.get(CLASS).filter(|class| **class != desired.class);
    if let Some(other) = other_class.filter(|_| !found.equal && !abandoned) {
        return Err(Refusal::OtherClass(other.clone()));
    }
    // The content time of another class does not compare with ours.
    let time = stored.annotations.get(CONTENT_TIME).filter(|_| other_class.is_none());
    let time = time.and_then(|time| time.parse::<Timestamp>().ok());
    // One in the future comes from a wrong clock; until then no node could write newer content.
    let time = time.filter(|time| time.duration_since(now) <= CLOCK_SKEW);
    // Content with other keys is not newer: the class has changed, or a key was removed by hand.
    let newer = !found.equal_data
        && found.equal_keys
        && time.is_some_and(|time| time > desired.content_time)
        && !is_tampered(manager, desired, stored);
    let content = (!found.equal && !newer).then(|| match time {
        Some(time) if found.equal_data => time.max(desired.content_time),
        Some(_) | None => desired.content_time,
    });
    let take_over = content.is_some() && found.surplus.contains(&Some(Ownership::Updated));
    Ok(Plan {
        take_over: take_over.then(|| stored.managed_fields.taken_over(manager)),
        content,
        owners: match (&desired.owners, other_class) {
            // Two classes that ask for the same content would replace each other's owners again and
            // again.
            (Owners::None, Some(_)) if !abandoned => OwnerChange::Keep,
            _ => owner_change(&desired.owners, &stored.owners),
        },
        newer,
    })
}

fn check_writable(manager: &SecretManager, desired: &DesiredSecret, stored: &StoredSecret) -> Result<(), Refusal> {
    if stored.terminating {
        return Err(Refusal::Terminating);
    }
    let (key, value) = manager.label;
    if stored.labels.get(key).is_none_or(|stored| stored != value) {
        return Err(Refusal::NotManaged { label: manager.label });
    }
    if stored.r#type != desired.content.r#type {
        return Err(Refusal::OtherType { stored: stored.r#type.clone(), desired: desired.content.r#type.clone() });
    }
    Ok(())
}

/// How a stored Secret differs from the desired one.
struct Comparison {
    /// Whether there is nothing to apply.
    equal: bool,
    equal_data: bool,
    equal_keys: bool,
    /// For data, labels and annotations: the ownership of keys that are not desired.
    surplus: [Option<Ownership>; 3],
}

impl Comparison {
    fn new(manager: &SecretManager, desired: &DesiredSecret, stored: &StoredSecret) -> Comparison {
        let (data, labels) = (&desired.content.data, desired.labels(manager));
        let annotations = &desired.content.annotations;
        let surplus = [
            surplus(manager, stored, KeyedField::Data, stored.data.keys(), |key| data.contains_key(key)),
            surplus(manager, stored, KeyedField::Labels, stored.labels.keys(), |key| labels.contains_key(key)),
            surplus(manager, stored, KeyedField::Annotations, stored.annotations.keys(), |key| {
                key.starts_with(ANNOTATION_PREFIX) || annotations.contains_key(key)
            }),
        ];
        let equal_data = surplus[0].is_none() && data.iter().all(|(key, value)| is_same(stored.data.get(key), value));
        let contains = |stored: &BTreeMap<String, String>, desired: &BTreeMap<String, String>| {
            desired.iter().all(|(key, value)| stored.get(key) == Some(value))
        };
        let equal = equal_data
            && surplus.iter().all(Option::is_none)
            && contains(&stored.labels, &labels)
            && contains(&stored.annotations, annotations);
        let equal_keys = surplus[0].is_none() && data.keys().all(|key| stored.data.contains_key(key));
        Comparison { equal, equal_data, equal_keys, surplus }
    }
}

/// The ownership of keys that drivers set and that are not desired; `Updated` if any key has that.
fn surplus<'a>(
    manager: &SecretManager,
    stored: &StoredSecret,
    field: KeyedField,
    keys: impl Iterator<Item = &'a String>,
    is_desired: impl Fn(&str) -> bool,
) -> Option<Ownership> {
    let mut found = None;
    for key in keys.filter(|key| !is_desired(key)) {
        match stored.managed_fields.ownership(manager, field, key) {
            Ownership::Updated => return Some(Ownership::Updated),
            Ownership::Applied => found = Some(Ownership::Applied),
            Ownership::Foreign => {}
        }
    }
    found
}

/// Whether a foreign field manager changed a value of ours: that is not newer content.
fn is_tampered(manager: &SecretManager, desired: &DesiredSecret, stored: &StoredSecret) -> bool {
    let differing = desired.content.data.iter().filter(|(key, value)| !is_same(stored.data.get(*key), value));
    differing
        .filter(|(key, _)| stored.data.contains_key(*key))
        .any(|(key, _)| stored.managed_fields.ownership(manager, KeyedField::Data, key) == Ownership::Foreign)
}

/// Compares owners by UID. A stored owner with the kind and name of a desired one, and another UID,
/// no longer exists.
fn owner_change(desired: &Owners, stored: &[Owner]) -> OwnerChange {
    let desired = match desired {
        Owners::None if stored.is_empty() => return OwnerChange::Keep,
        Owners::None => return OwnerChange::Replace(Vec::new()),
        Owners::Shared(owners) => owners,
    };
    let is_stored = |owner: &&Owner| stored.iter().any(|stored| stored.uid == owner.uid);
    let missing: Vec<Owner> = desired.iter().filter(|owner| !is_stored(owner)).cloned().collect();
    let group = |owner: &Owner| owner.api_version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    let replaced = |stored: &&Owner| {
        let same_name =
            |owner: &Owner| (&owner.kind, &owner.name, group(owner)) == (&stored.kind, &stored.name, group(stored));
        // Two desired owners may have the same name: neither replaces the other.
        desired.iter().all(|owner| owner.uid != stored.uid) && desired.iter().any(same_name)
    };
    let alive: Vec<Owner> = stored.iter().filter(|stored| !replaced(stored)).cloned().collect();
    match (alive.len() == stored.len(), missing.is_empty()) {
        (false, _) => OwnerChange::Replace(alive.into_iter().chain(missing).collect()),
        (true, false) => OwnerChange::Add(missing),
        (true, true) => OwnerChange::Keep,
    }
}
