//! What one vault holds of one kind: objects, their versions and attributes, soft delete.
//!
//! Pure: time comes in as an argument, access and wire format are `keyvault`'s business.
//! The newest version is the one created last; of two created in the same second, the one set last.
//! What a version is about (a value, a key, a certificate) is the type parameter, from `content`.
//!
//! Names are kept as first written and found in any case, as Key Vault does.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// How long a deleted object can be recovered, in days.
pub(crate) const RECOVERABLE_DAYS: i64 = 90;

/// What Key Vault stores beside a object, key or certificate; times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectAttributes {
    /// A disabled secret cannot be read; a disabled key or certificate can, and says so.
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
    /// Leaves `attributes` out of every answer about this version, which the real service never does.
    pub omit_attributes: bool,
}

/// The name of [`ObjectAttributes`] when there were only secrets.
pub type SecretAttributes = ObjectAttributes;

impl Default for ObjectAttributes {
    /// Enabled, and nothing else said: what a plain `set` gives.
    fn default() -> ObjectAttributes {
        ObjectAttributes {
            enabled: true,
            created: None,
            updated: None,
            not_before: None,
            expires: None,
            content_type: None,
            tags: BTreeMap::new(),
            omit_attributes: false,
        }
    }
}

/// A change to a version's attributes; `None` leaves things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) enabled: Option<bool>,
    pub(crate) not_before: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) content_type: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

/// One version of an object.
#[derive(Debug, Clone)]
pub(crate) struct Version<C> {
    pub(crate) id: String,
    pub(crate) content: C,
    pub(crate) attributes: ObjectAttributes,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    order: u64,
}

/// An object with all its versions, of which there is at least one.
#[derive(Debug, Clone)]
pub(crate) struct Object<C> {
    pub(crate) name: String,
    versions: BTreeMap<String, Version<C>>,
}

/// An object that was deleted and not purged.
#[derive(Debug, Clone)]
pub(crate) struct DeletedObject<C> {
    pub(crate) object: Object<C>,
    pub(crate) deleted: i64,
}

/// Why the store refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such object or version.
    Missing,
    /// There is no such deleted object.
    NotDeleted,
    /// The name belongs to a deleted object.
    Deleted,
    /// The name belongs to an object in use.
    InUse,
}

/// A page of a list, and the key after which the next page begins.
#[derive(Debug)]
pub(crate) struct Page<'s, T> {
    pub(crate) items: Vec<&'s T>,
    pub(crate) next: Option<String>,
}

/// All objects of one kind in one vault.
#[derive(Debug)]
pub(crate) struct Store<C> {
    live: BTreeMap<String, Object<C>>,
    deleted: BTreeMap<String, DeletedObject<C>>,
    order: u64,
}

impl<C> Default for Store<C> {
    fn default() -> Store<C> {
        Store { live: BTreeMap::new(), deleted: BTreeMap::new(), order: 0 }
    }
}

impl<C> Object<C> {
    /// The version created last.
    pub(crate) fn newest(&self) -> Option<&Version<C>> {
        self.versions.values().max_by_key(|version| (version.created, version.order))
    }

    /// The versions in the order of their ids, which says nothing about their age, as in Key Vault.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version<C>> {
        self.versions.values()
    }
}

impl<C> Store<C> {
    /// Adds a version; one of the same id is replaced.
    pub(crate) fn set(
        &mut self,
        name: &str,
        id: &str,
        content: C,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<&Version<C>, Refusal> {
        let key = name.to_ascii_lowercase();
        if self.deleted.contains_key(&key) {
            return Err(Refusal::Deleted);
        }
        self.order += 1;
        let created = attributes.created.unwrap_or(now);
        let version = Version {
            id: id.to_owned(),
            content,
            created,
            updated: attributes.updated.unwrap_or(created),
            attributes,
            order: self.order,
        };
        let object =
            self.live.entry(key).or_insert_with(|| Object { name: name.to_owned(), versions: BTreeMap::new() });
        object.versions.insert(id.to_owned(), version);
        object.versions.get(id).ok_or(Refusal::Missing)
    }

    /// An object that is not deleted.
    pub(crate) fn object(&self, name: &str) -> Result<&Object<C>, Refusal> {
        let object = self.live.get(&name.to_ascii_lowercase());
        object.ok_or(Refusal::Missing)
    }

    /// A version, or the newest.
    pub(crate) fn version(&self, name: &str, id: Option<&str>) -> Result<(&Object<C>, &Version<C>), Refusal> {
        let object = self.object(name)?;
        let version = match id {
            Some(id) => object.versions.get(id),
            None => object.newest(),
        };
        Ok((object, version.ok_or(Refusal::Missing)?))
    }

    /// Changes the attributes of a version, or of the newest.
    pub(crate) fn update(
        &mut self,
        name: &str,
        id: Option<&str>,
        change: Change,
        now: i64,
    ) -> Result<(&Object<C>, &Version<C>), Refusal> {
        let id = self.version(name, id)?.1.id.clone();
        let object = self.live.get_mut(&name.to_ascii_lowercase());
        let object = object.ok_or(Refusal::Missing)?;
        let version = object.versions.get_mut(&id).ok_or(Refusal::Missing)?;
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

    /// Deletes an object with all its versions; it can be recovered.
    pub(crate) fn delete(&mut self, name: &str, now: i64) -> Result<&DeletedObject<C>, Refusal> {
        let key = name.to_ascii_lowercase();
        let object = self.live.remove(&key).ok_or(Refusal::Missing)?;
        let deleted = DeletedObject { object, deleted: now };
        Ok(self.deleted.entry(key).or_insert(deleted))
    }

    /// A deleted object.
    pub(crate) fn deleted(&self, name: &str) -> Result<&DeletedObject<C>, Refusal> {
        let object = self.deleted.get(&name.to_ascii_lowercase());
        object.ok_or(Refusal::NotDeleted)
    }

    /// Brings a deleted object back.
    pub(crate) fn recover(&mut self, name: &str) -> Result<&Object<C>, Refusal> {
        let key = name.to_ascii_lowercase();
        if self.live.contains_key(&key) {
            return Err(Refusal::InUse);
        }
        let deleted = self.deleted.remove(&key).ok_or(Refusal::NotDeleted)?;
        Ok(self.live.entry(key).or_insert(deleted.object))
    }

    /// Removes a deleted object for good.
    pub(crate) fn purge(&mut self, name: &str) -> Result<(), Refusal> {
        let gone = self.deleted.remove(&name.to_ascii_lowercase());
        gone.map(|_| ()).ok_or(Refusal::NotDeleted)
    }

    /// A page of objects, by name.
    pub(crate) fn page(&self, after: Option<&str>, size: usize) -> Page<'_, Object<C>> {
        page(&self.live, after, size)
    }

    /// A page of deleted objects, by name.
    pub(crate) fn deleted_page(&self, after: Option<&str>, size: usize) -> Page<'_, DeletedObject<C>> {
        page(&self.deleted, after, size)
    }

    /// A page of versions; an object that does not exist has an empty one, as in Key Vault.
    pub(crate) fn version_page(&self, name: &str, after: Option<&str>, size: usize) -> Page<'_, Version<C>> {
        match self.object(name) {
            Ok(object) => page(&object.versions, after, size),
            Err(_) => Page { items: Vec::new(), next: None },
        }
    }

    /// The names in use.
    pub(crate) fn names(&self) -> Vec<String> {
        self.live.values().map(|object| object.name.clone()).collect()
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
