//! What has to be done to a Secret that is there, so that it is what a class asks for.
//!
//! Pure. Decides whose Secret it is, whether ours is the newer content, and which owners are
//! missing (docs/decisions.md#d14); `writer` sends what is decided here.
//!
//! # Guarantees
//! A Secret without the label of drivers is never touched. The plan for a Secret that is as it should be is empty.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::desired::Desired;
use crate::kubernetes::{MANAGED_LABEL, Part, Responsible, SecretRef, StoredSecret, Writers};
use crate::model::{ANNOTATION_PREFIX, ExposeSecret as _, Owner, SecretBytes};

/// The annotation with the class that a Secret is written for.
const CLASS: &str = "keyvault-csi/class";
/// The annotation with the time at which the content was written to the volume that it is from.
const CONTENT_TIME: &str = "keyvault-csi/content-time";

/// A Secret that one of our classes asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Where it is to be.
    pub(super) at: SecretRef,
    /// The name of the class.
    pub(super) class: String,
    /// What is to be in it.
    pub(super) secret: Desired,
    /// When its content was written to the volume.
    pub(super) written: Timestamp,
    /// Who it is to go with.
    pub(super) owners: Owners,
}

/// Who a Secret goes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owners {
    /// These, and those that other nodes add.
    These(Vec<Owner>),
    /// Nobody: it stays when the last pod has gone.
    Nobody,
}

/// What has to be done to a Secret, in this order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Plan {
    /// Say that we applied what drivers wrote plainly, so that it can be removed.
    pub(super) take_over: Option<Writers>,
    /// Apply our content, as of this time.
    pub(super) content: Option<Timestamp>,
    /// What about the owners.
    pub(super) owners: OwnerChange,
    /// Its content is from another node and newer than ours, and is left alone.
    pub(super) newer: bool,
}

/// What has to be done about owners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum OwnerChange {
    /// Nothing.
    #[default]
    Keep,
    /// Add these, each by itself.
    Add(Vec<Owner>),
    /// Make these all there are: some that are there are gone for good, or none is to be there.
    Replace(Vec<Owner>),
}

/// Why a Secret is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is being deleted.
    Ending,
    /// No driver made it.
    NotOurs,
    /// It has another type, which cannot change.
    OtherType {
        /// The type it has.
        has: String,
        /// The type the class asks for.
        wanted: String,
    },
    /// It is another class's, with other content.
    OtherClass(String),
}

impl Plan {
    /// Whether anything has to be written.
    pub(super) fn writes(&self) -> bool {
        self.take_over.is_some() || self.content.is_some() || self.owners != OwnerChange::Keep
    }
}

impl Wanted {
    /// The labels of the Secret.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.secret.labels.clone();
        labels.insert(MANAGED_LABEL.to_owned(), "true".to_owned());
        labels
    }

    /// The annotations of the Secret, with its content as of this time.
    pub(super) fn annotations(&self, written: Timestamp) -> BTreeMap<String, String> {
        let mut annotations = self.secret.annotations.clone();
        annotations.insert(CLASS.to_owned(), self.class.clone());
        annotations.insert(CONTENT_TIME.to_owned(), written.to_string());
        annotations
    }

    /// A digest of everything that would be written but the time; kept in memory only.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        // Each with its length, so that no two sets of pieces are one text.
        let mut add = |piece: &[u8]| {
            digest.update((piece.len() as u64).to_be_bytes());
            digest.update(piece);
        };
        add(self.class.as_bytes());
        add(self.secret.r#type.as_bytes());
        for pairs in [&self.secret.labels, &self.secret.annotations] {
            add(&pairs.len().to_be_bytes());
            pairs.iter().for_each(|(key, value)| [key, value].into_iter().for_each(|text| add(text.as_bytes())));
        }
        for (key, value) in &self.secret.data {
            add(key.as_bytes());
            add(value.expose_secret());
        }
        match &self.owners {
            Owners::These(owners) => owners.iter().for_each(|owner| add(owner.uid.as_bytes())),
            Owners::Nobody => add(b"nobody"),
        }
        digest.finalize().into()
    }

    fn equal_data(&self, stored: &StoredSecret) -> bool {
        self.secret.data.iter().all(|(key, value)| same(stored.data.get(key), value))
    }
}

fn same(stored: Option<&SecretBytes>, wanted: &SecretBytes) -> bool {
    stored.is_some_and(|stored| stored.expose_secret() == wanted.expose_secret())
}

/// How far the clocks of two nodes may be apart.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// What leads from `stored` to `wanted`; `abandoned` says that the class that it was written for wants it no more.
///
/// # Errors
/// The Secret is not ours to write.
pub(super) fn plan(wanted: &Wanted, stored: &StoredSecret, abandoned: bool, now: Timestamp) -> Result<Plan, Refusal> {
    if stored.ending {
        return Err(Refusal::Ending);
    }
    if stored.labels.get(MANAGED_LABEL).is_none_or(|value| value != "true") {
        return Err(Refusal::NotOurs);
    }
    if stored.r#type != wanted.secret.r#type {
        return Err(Refusal::OtherType { has: stored.r#type.clone(), wanted: wanted.secret.r#type.clone() });
    }
    let labels = wanted.labels();
    let annotations = &wanted.secret.annotations;
    let surplus = [
        surplus(stored, Part::Data, stored.data.keys(), |key| wanted.secret.data.contains_key(key)),
        surplus(stored, Part::Labels, stored.labels.keys(), |key| labels.contains_key(key)),
        surplus(stored, Part::Annotations, stored.annotations.keys(), |key| {
            key.starts_with(ANNOTATION_PREFIX) || annotations.contains_key(key)
        }),
    ];
    let equal_data = wanted.equal_data(stored) && surplus[0].is_none();
    let has = |stored: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(key, value)| stored.get(key) == Some(value))
    };
    let equal = equal_data
        && surplus.iter().all(Option::is_none)
        && has(&stored.labels, &labels)
        && has(&stored.annotations, annotations);
    let other = stored.annotations.get(CLASS).filter(|class| **class != wanted.class);
    if let Some(other) = other.filter(|_| !equal && !abandoned) {
        return Err(Refusal::OtherClass(other.clone()));
    }
    // The time of another class's content says nothing about ours.
    let time = stored.annotations.get(CONTENT_TIME).filter(|_| other.is_none());
    let time = time.and_then(|time| time.parse::<Timestamp>().ok());
    // Nor does one that has not come yet: a clock was wrong, and nobody could ever be newer.
    let time = time.filter(|time| time.duration_since(now) <= CLOCKS);
    // Other keys than ours are not newer content: the class asks for others now, or somebody took one away.
    let equal_keys = surplus[0].is_none() && wanted.secret.data.keys().all(|key| stored.data.contains_key(key));
    let newer =
        !equal_data && equal_keys && time.is_some_and(|time| time > wanted.written) && !tampered(wanted, stored);
    let content = (!equal && !newer).then(|| match time {
        Some(time) if equal_data => time.max(wanted.written),
        Some(_) | None => wanted.written,
    });
    let take_over = content.is_some() && surplus.contains(&Some(Responsible::Written));
    Ok(Plan {
        take_over: take_over.then(|| stored.writers.taken_over()),
        content,
        owners: match (&wanted.owners, other) {
            // Two classes that ask for the same do not fight over its owners.
            (Owners::Nobody, Some(_)) if !abandoned => OwnerChange::Keep,
            _ => owner_change(&wanted.owners, &stored.owners),
        },
        newer,
    })
}

/// Who is responsible for keys that drivers once wrote and that are not wanted: if anybody wrote plainly, that counts.
fn surplus<'a>(
    stored: &StoredSecret,
    part: Part,
    keys: impl Iterator<Item = &'a String>,
    wanted: impl Fn(&str) -> bool,
) -> Option<Responsible> {
    let mut found = None;
    for key in keys.filter(|key| !wanted(key)) {
        match stored.writers.responsible(part, key) {
            Responsible::Written => return Some(Responsible::Written),
            Responsible::Applied => found = Some(Responsible::Applied),
            Responsible::Others => {}
        }
    }
    found
}

/// Whether somebody else than a driver changed a value of ours: that is no newer content.
fn tampered(wanted: &Wanted, stored: &StoredSecret) -> bool {
    let differing = wanted.secret.data.iter().filter(|(key, value)| !same(stored.data.get(*key), value));
    differing
        .filter(|(key, _)| stored.data.contains_key(*key))
        .any(|(key, _)| stored.writers.responsible(Part::Data, key) == Responsible::Others)
}

/// Owners are told apart by UID; one of the same kind and name with another UID is gone for good.
fn owner_change(wanted: &Owners, stored: &[Owner]) -> OwnerChange {
    let wanted = match wanted {
        Owners::Nobody if stored.is_empty() => return OwnerChange::Keep,
        Owners::Nobody => return OwnerChange::Replace(Vec::new()),
        Owners::These(owners) => owners,
    };
    let there = |owner: &&Owner| stored.iter().any(|stored| stored.uid == owner.uid);
    let missing: Vec<Owner> = wanted.iter().filter(|owner| !there(owner)).cloned().collect();
    let group = |owner: &Owner| owner.api_version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    let replaced = |stored: &&Owner| {
        let same_name =
            |owner: &Owner| (&owner.kind, &owner.name, group(owner)) == (&stored.kind, &stored.name, group(stored));
        // Of two that are wanted neither takes the other's place.
        wanted.iter().all(|owner| owner.uid != stored.uid) && wanted.iter().any(same_name)
    };
    let alive: Vec<Owner> = stored.iter().filter(|stored| !replaced(stored)).cloned().collect();
    match (alive.len() == stored.len(), missing.is_empty()) {
        (false, _) => OwnerChange::Replace(alive.into_iter().chain(missing).collect()),
        (true, false) => OwnerChange::Add(missing),
        (true, true) => OwnerChange::Keep,
    }
}
