//! The secrets of one vault: versions, attributes, soft delete.
//!
//! Pure: time comes in as an argument, access and wire format are `keyvault`'s business.
//! The newest version is the one created last; of two created in the same second, the one set last.
//!
//! Names are kept as first written and found in any case, as Key Vault does.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// How long a deleted secret can be recovered, in days.
pub(crate) const RECOVERABLE_DAYS: i64 = 90;

/// What Key Vault stores beside a secret's value; times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretAttributes {
    /// A disabled version cannot be read.
    pub enabled: bool,
    /// When the version was made; now if not given.
    pub created: Option<i64>,
    /// When it was last changed; `created` if not given.
    pub updated: Option<i64>,
    /// `nbf`: for the reader to judge, Key Vault gives out secrets before it.
    pub not_before: Option<i64>,
    /// `exp`: for the reader to judge, Key Vault gives out secrets after it.
    pub expires: Option<i64>,
    /// A note on what the value is, for example `application/x-pkcs12`.
    pub content_type: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
}

impl Default for SecretAttributes {
    /// Enabled, and nothing else said: what a plain `set` gives.
    fn default() -> SecretAttributes {
        SecretAttributes {
            enabled: true,
            created: None,
            updated: None,
            not_before: None,
            expires: None,
            content_type: None,
            tags: BTreeMap::new(),
        }
    }
}

/// A change to a version's attributes; `None` leaves things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SecretChange {
    pub(crate) enabled: Option<bool>,
    pub(crate) not_before: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) content_type: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

/// One version of a secret.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) value: String,
    pub(crate) attributes: SecretAttributes,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    order: u64,
}

/// A secret with all its versions, of which there is at least one.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    pub(crate) name: String,
    versions: BTreeMap<String, Version>,
}

/// A secret that was deleted and not purged.
#[derive(Debug, Clone)]
pub(crate) struct DeletedSecret {
    pub(crate) secret: Secret,
    pub(crate) deleted: i64,
}

/// Why the store refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such secret or version.
    Missing,
    /// There is no such deleted secret.
    NotDeleted,
    /// The name belongs to a deleted secret.
    Deleted,
    /// The name belongs to a secret in use.
    InUse,
}

/// A page of a list, and the key after which the next page begins.
#[derive(Debug)]
pub(crate) struct Page<'s, T> {
    pub(crate) items: Vec<&'s T>,
    pub(crate) next: Option<String>,
}

/// All secrets of one vault.
#[derive(Debug, Default)]
pub(crate) struct SecretStore {
    live: BTreeMap<String, Secret>,
    deleted: BTreeMap<String, DeletedSecret>,
    order: u64,
}

impl Secret {
    /// The version created last.
    pub(crate) fn newest(&self) -> Option<&Version> {
        self.versions.values().max_by_key(|version| (version.created, version.order))
    }

    /// The versions in the order of their ids, which says nothing about their age, as in Key Vault.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.values()
    }
}

impl SecretStore {
    /// Adds a version; one of the same id is replaced.
    pub(crate) fn set(
        &mut self,
        name: &str,
        id: &str,
        value: &str,
        attributes: SecretAttributes,
        now: i64,
    ) -> Result<&Version, Refusal> {
        let key = name.to_ascii_lowercase();
        if self.deleted.contains_key(&key) {
            return Err(Refusal::Deleted);
        }
        self.order += 1;
        let created = attributes.created.unwrap_or(now);
        let version = Version {
            id: id.to_owned(),
            value: value.to_owned(),
            created,
            updated: attributes.updated.unwrap_or(created),
            attributes,
            order: self.order,
        };
        let secret =
            self.live.entry(key).or_insert_with(|| Secret { name: name.to_owned(), versions: BTreeMap::new() });
        secret.versions.insert(id.to_owned(), version);
        secret.versions.get(id).ok_or(Refusal::Missing)
    }

    /// A secret that is not deleted.
    pub(crate) fn secret(&self, name: &str) -> Result<&Secret, Refusal> {
        let secret = self.live.get(&name.to_ascii_lowercase());
        secret.ok_or(Refusal::Missing)
    }

    /// A version, or the newest.
    pub(crate) fn version(&self, name: &str, id: Option<&str>) -> Result<(&Secret, &Version), Refusal> {
        let secret = self.secret(name)?;
        let version = match id {
            Some(id) => secret.versions.get(id),
            None => secret.newest(),
        };
        Ok((secret, version.ok_or(Refusal::Missing)?))
    }

    /// Changes the attributes of a version, or of the newest.
    pub(crate) fn update(
        &mut self,
        name: &str,
        id: Option<&str>,
        change: SecretChange,
        now: i64,
    ) -> Result<(&Secret, &Version), Refusal> {
        let id = self.version(name, id)?.1.id.clone();
        let secret = self.live.get_mut(&name.to_ascii_lowercase());
        let secret = secret.ok_or(Refusal::Missing)?;
        let version = secret.versions.get_mut(&id).ok_or(Refusal::Missing)?;
        let attributes = &mut version.attributes;
        attributes.enabled = change.enabled.unwrap_or(attributes.enabled);
        attributes.not_before = change.not_before.or(attributes.not_before);
        attributes.expires = change.expires.or(attributes.expires);
        if change.content_type.is_some() {
            attributes.content_type = change.content_type;
        }
        if let Some(tags) = change.tags {
            attributes.tags = tags;
        }
        version.updated = now;
        self.version(name, Some(&id))
    }

    /// Deletes a secret with all its versions; it can be recovered.
    pub(crate) fn delete(&mut self, name: &str, now: i64) -> Result<&DeletedSecret, Refusal> {
        let key = name.to_ascii_lowercase();
        let secret = self.live.remove(&key).ok_or(Refusal::Missing)?;
        let deleted = DeletedSecret { secret, deleted: now };
        Ok(self.deleted.entry(key).or_insert(deleted))
    }

    /// A deleted secret.
    pub(crate) fn deleted(&self, name: &str) -> Result<&DeletedSecret, Refusal> {
        let secret = self.deleted.get(&name.to_ascii_lowercase());
        secret.ok_or(Refusal::NotDeleted)
    }

    /// Brings a deleted secret back.
    pub(crate) fn recover(&mut self, name: &str) -> Result<&Secret, Refusal> {
        let key = name.to_ascii_lowercase();
        if self.live.contains_key(&key) {
            return Err(Refusal::InUse);
        }
        let deleted = self.deleted.remove(&key).ok_or(Refusal::NotDeleted)?;
        Ok(self.live.entry(key).or_insert(deleted.secret))
    }

    /// Removes a deleted secret for good.
    pub(crate) fn purge(&mut self, name: &str) -> Result<(), Refusal> {
        let gone = self.deleted.remove(&name.to_ascii_lowercase());
        gone.map(|_| ()).ok_or(Refusal::NotDeleted)
    }

    /// A page of secrets, by name.
    pub(crate) fn page(&self, after: Option<&str>, size: usize) -> Page<'_, Secret> {
        page(&self.live, after, size)
    }

    /// A page of deleted secrets, by name.
    pub(crate) fn deleted_page(&self, after: Option<&str>, size: usize) -> Page<'_, DeletedSecret> {
        page(&self.deleted, after, size)
    }

    /// A page of versions; a secret that does not exist has an empty one, as in Key Vault.
    pub(crate) fn version_page(&self, name: &str, after: Option<&str>, size: usize) -> Page<'_, Version> {
        match self.secret(name) {
            Ok(secret) => page(&secret.versions, after, size),
            Err(_) => Page { items: Vec::new(), next: None },
        }
    }

    /// The names in use.
    pub(crate) fn names(&self) -> Vec<String> {
        self.live.values().map(|secret| secret.name.clone()).collect()
    }
}

/// Pages continue after a key and not at a number, so that they survive changes in between.
fn page<'s, T>(map: &'s BTreeMap<String, T>, after: Option<&str>, size: usize) -> Page<'s, T> {
    let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_owned()));
    let mut rest = map.range((start, Bound::Unbounded));
    let taken: Vec<_> = rest.by_ref().take(size).collect();
    let next = match (rest.next(), taken.last()) {
        (Some(_), Some((key, _))) => Some((*key).clone()),
        (Some(_) | None, _) => None,
    };
    Page { items: taken.into_iter().map(|(_, item)| item).collect(), next }
}
