//! The objects of one kind in a vault: versions, attributes, soft delete.
//!
//! Pure: the time is an argument; `keyvault` handles access and the wire format. The newest version
//! is the one created last, and of two created in the same second the one set last. The type
//! parameter is the content of a version, from `content`.
//!
//! Names keep their first spelling and are compared without case, as in Key Vault.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

pub(crate) const RECOVERABLE_DAYS: i64 = 90;

/// The attributes of a version of an object; times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectAttributes {
    /// A disabled secret cannot be read; a disabled key or certificate can.
    pub enabled: bool,
    /// The time of creation; by default now.
    pub created: Option<i64>,
    /// The time of the last change; by default `created`.
    pub updated: Option<i64>,
    /// `nbf`: Key Vault returns secrets before this time, too.
    pub not_before: Option<i64>,
    /// `exp`: Key Vault returns secrets after this time, too.
    pub expires: Option<i64>,
    /// The type of the value, for example `application/x-pkcs12`.
    pub content_type: Option<String>,
    /// Tags, which Key Vault does not interpret.
    pub tags: BTreeMap<String, String>,
    /// Omits `attributes` from every response about this version, which the real service never
    /// does.
    pub omit_attributes: bool,
}

impl Default for ObjectAttributes {
    /// Enabled, and nothing else set.
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

/// A change of attributes; `None` does not change an attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) enabled: Option<bool>,
    pub(crate) not_before: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) content_type: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Version<C> {
    pub(crate) id: String,
    pub(crate) content: C,
    pub(crate) attributes: ObjectAttributes,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    order: u64,
}

/// An object with its versions, of which there is at least one.
#[derive(Debug, Clone)]
pub(crate) struct Object<C> {
    pub(crate) name: String,
    versions: BTreeMap<String, Version<C>>,
}

#[derive(Debug, Clone)]
pub(crate) struct DeletedObject<C> {
    pub(crate) object: Object<C>,
    pub(crate) deleted: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreError {
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
    pub(crate) fn newest(&self) -> Option<&Version<C>> {
        self.versions.values().max_by_key(|version| (version.created, version.order))
    }

    /// In the order of the ids, which is unrelated to their age, as in Key Vault.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version<C>> {
        self.versions.values()
    }
}

impl<C> Store<C> {
    /// Adds a version, or replaces the one with this id.
    pub(crate) fn set(
        &mut self,
        name: &str,
        id: &str,
        content: C,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<&Version<C>, StoreError> {
        let key = name.to_ascii_lowercase();
        if self.deleted.contains_key(&key) {
            return Err(StoreError::Deleted);
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
        object.versions.get(id).ok_or(StoreError::Missing)
    }

    pub(crate) fn object(&self, name: &str) -> Result<&Object<C>, StoreError> {
        let object = self.live.get(&name.to_ascii_lowercase());
        object.ok_or(StoreError::Missing)
    }

    /// A version; without an id, the newest.
    pub(crate) fn version(&self, name: &str, id: Option<&str>) -> Result<(&Object<C>, &Version<C>), StoreError> {
        let object = self.object(name)?;
        let version = match id {
            Some(id) => object.versions.get(id),
            None => object.newest(),
        };
        Ok((object, version.ok_or(StoreError::Missing)?))
    }

    /// Changes the attributes of a version; without an id, of the newest.
    pub(crate) fn update(
        &mut self,
        name: &str,
        id: Option<&str>,
        change: Change,
        now: i64,
    ) -> Result<(&Object<C>, &Version<C>), StoreError> {
        let id = self.version(name, id)?.1.id.clone();
        let object = self.live.get_mut(&name.to_ascii_lowercase());
        let object = object.ok_or(StoreError::Missing)?;
        let version = object.versions.get_mut(&id).ok_or(StoreError::Missing)?;
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

    /// Deletes an object with its versions; it can be recovered.
    pub(crate) fn delete(&mut self, name: &str, now: i64) -> Result<&DeletedObject<C>, StoreError> {
        let key = name.to_ascii_lowercase();
        let object = self.live.remove(&key).ok_or(StoreError::Missing)?;
        let deleted = DeletedObject { object, deleted: now };
        Ok(self.deleted.entry(key).or_insert(deleted))
    }

    pub(crate) fn deleted(&self, name: &str) -> Result<&DeletedObject<C>, StoreError> {
        let object = self.deleted.get(&name.to_ascii_lowercase());
        object.ok_or(StoreError::NotDeleted)
    }

    pub(crate) fn recover(&mut self, name: &str) -> Result<&Object<C>, StoreError> {
        let key = name.to_ascii_lowercase();
        if self.live.contains_key(&key) {
            return Err(StoreError::InUse);
        }
        let deleted = self.deleted.remove(&key).ok_or(StoreError::NotDeleted)?;
        Ok(self.live.entry(key).or_insert(deleted.object))
    }

    pub(crate) fn purge(&mut self, name: &str) -> Result<(), StoreError> {
        let gone = self.deleted.remove(&name.to_ascii_lowercase());
        gone.map(|_| ()).ok_or(StoreError::NotDeleted)
    }

    /// A page of objects, by name.
    pub(crate) fn page(&self, after: Option<&str>, size: usize) -> Page<'_, Object<C>> {
        page(&self.live, after, size)
    }

    /// A page of deleted objects, by name.
    pub(crate) fn deleted_page(&self, after: Option<&str>, size: usize) -> Page<'_, DeletedObject<C>> {
        page(&self.deleted, after, size)
    }

    /// A page of versions; an unknown object has an empty one, as in Key Vault.
    pub(crate) fn version_page(&self, name: &str, after: Option<&str>, size: usize) -> Page<'_, Version<C>> {
        match self.object(name) {
            Ok(object) => page(&object.versions, after, size),
            Err(_) => Page { items: Vec::new(), next: None },
        }
    }

    /// The names of objects that are not deleted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.live.values().map(|object| object.name.clone()).collect()
    }
}

/// Pages continue after a key and not at an index, so that changes between two pages are harmless.
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
