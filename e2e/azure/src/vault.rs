//! One vault: who may do what, and its secrets, keys and certificates.
//!
//! Every change from outside is a method here that checks its input and says what to fix.
//! Requests over the wire go to the stores directly, from `keyvault`.
//!
//! # Guarantees
//!
//! A certificate's secret and key have its name and version, and are enabled, disabled, deleted and
//! purged with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{CertificateContent, CertificateMaterial, Jwk, KeyContent, ObjectKind, SecretContent};
use crate::keyvault::names;
use crate::object::{Change, ObjectAttributes, Refusal, Store};
use crate::random;
use crate::world::{Access, PAGE_SIZE, Permission, WorldError, invalid, refused};

/// One vault.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) name: String,
    pub(crate) suffix: String,
    pub(crate) tenant: String,
    pub(crate) access: Access,
    pub(crate) page_size: usize,
    pub(crate) grants: BTreeMap<String, BTreeSet<(ObjectKind, Permission)>>,
    pub(crate) secrets: Store<SecretContent>,
    pub(crate) keys: Store<KeyContent>,
    pub(crate) certificates: Store<CertificateContent>,
}

impl Vault {
    /// Lets a client do something with all kinds of objects; what it may already do stays.
    pub(crate) fn grant(&mut self, client: &str, permissions: &[Permission]) {
        for kind in ObjectKind::ALL {
            self.grant_on(client, kind, permissions);
        }
    }

    /// Lets a client do something with one kind of objects.
    pub(crate) fn grant_on(&mut self, client: &str, kind: ObjectKind, permissions: &[Permission]) {
        let granted = self.grants.entry(client.to_ascii_lowercase()).or_default();
        granted.extend(permissions.iter().map(|&permission| (kind, permission)));
    }

    /// Takes permissions on all kinds of objects away.
    pub(crate) fn revoke(&mut self, client: &str, permissions: &[Permission]) {
        for kind in ObjectKind::ALL {
            self.revoke_on(client, kind, permissions);
        }
    }

    /// Takes permissions on one kind of objects away.
    pub(crate) fn revoke_on(&mut self, client: &str, kind: ObjectKind, permissions: &[Permission]) {
        if let Some(granted) = self.grants.get_mut(&client.to_ascii_lowercase()) {
            granted.retain(|(on, granted)| *on != kind || !permissions.contains(granted));
        }
    }

    /// Whether a client may do something.
    pub(crate) fn allows(&self, client: &str, kind: ObjectKind, permission: Permission) -> bool {
        self.grants.get(client).is_some_and(|granted| granted.contains(&(kind, permission)))
    }

    /// The address of an object.
    pub(crate) fn id(&self, collection: &str, name: &str) -> String {
        format!("https://{}.{}/{collection}/{name}", self.name, self.suffix)
    }

    /// Sets the page size of lists.
    pub(crate) fn set_page_size(&mut self, size: usize) -> Result<(), WorldError> {
        if !(1..=PAGE_SIZE).contains(&size) {
            let rule = format!("from 1 to {PAGE_SIZE}");
            return Err(invalid("page size", &size.to_string(), &rule));
        }
        self.page_size = size;
        Ok(())
    }

    /// Sets a secret from outside, with a version of one's choice or a random one.
    pub(crate) fn put_secret(
        &mut self,
        name: &str,
        version: Option<&str>,
        value: &str,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<String, WorldError> {
        if value.len() > names::MAX_VALUE_BYTES {
            let rule = format!("a value has at most {} bytes", names::MAX_VALUE_BYTES);
            return Err(invalid("value of secret", name, &rule));
        }
        let version = checked_version(ObjectKind::Secret, name, version)?;
        let content = SecretContent { value: value.to_owned(), managed: false };
        let set = self.secrets.set(name, &version, content, attributes, now);
        set.map_err(|refusal| refused(refusal, name))?;
        Ok(version)
    }

    /// Sets a key from outside.
    pub(crate) fn put_key(
        &mut self,
        name: &str,
        version: Option<&str>,
        jwk: Jwk,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<String, WorldError> {
        let version = checked_version(ObjectKind::Key, name, version)?;
        let set = self.keys.set(name, &version, KeyContent { jwk, managed: false }, attributes, now);
        set.map_err(|refusal| refused(refusal, name))?;
        Ok(version)
    }

    /// Sets a certificate from outside, with its secret and its key.
    pub(crate) fn put_certificate(
        &mut self,
        name: &str,
        version: Option<&str>,
        material: &CertificateMaterial,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<String, WorldError> {
        let version = checked_version(ObjectKind::Certificate, name, version)?;
        self.set_certificate(name, &version, material, attributes, now).map_err(|refusal| refused(refusal, name))?;
        Ok(version)
    }

    /// Sets a certificate, its secret and its key, or none of them.
    pub(crate) fn set_certificate(
        &mut self,
        name: &str,
        version: &str,
        material: &CertificateMaterial,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<(), Refusal> {
        if self.secrets.deleted(name).is_ok() || self.keys.deleted(name).is_ok() {
            return Err(Refusal::Deleted);
        }
        let content = CertificateContent { der: Some(material.der_leaf.clone()), kty: material.key.kty.clone() };
        let content_type = Some(material.secret_content_type.clone()).filter(|text| !text.is_empty());
        let attributes = ObjectAttributes { content_type, ..attributes };
        self.certificates.set(name, version, content, attributes.clone(), now)?;
        let secret = SecretContent { value: material.secret_value.clone(), managed: true };
        self.secrets.set(name, version, secret, attributes.clone(), now)?;
        let key = KeyContent { jwk: material.key.clone(), managed: true };
        self.keys.set(name, version, key, ObjectAttributes { content_type: None, ..attributes }, now)?;
        Ok(())
    }

    /// Sets a certificate that its authority has not issued yet.
    pub(crate) fn put_pending_certificate(&mut self, name: &str, now: i64) -> Result<String, WorldError> {
        let version = checked_version(ObjectKind::Certificate, name, None)?;
        let attributes = ObjectAttributes { enabled: false, ..ObjectAttributes::default() };
        let content = CertificateContent { der: None, kty: "RSA".to_owned() };
        let set = self.certificates.set(name, &version, content, attributes, now);
        set.map_err(|refusal| refused(refusal, name))?;
        Ok(version)
    }

    /// Changes attributes from outside.
    pub(crate) fn change(
        &mut self,
        kind: ObjectKind,
        name: &str,
        version: &str,
        change: &Change,
        now: i64,
    ) -> Result<(), WorldError> {
        self.update(kind, name, version, change, now).map_err(|refusal| refused(refusal, version))
    }

    /// Changes attributes, of a certificate also those of its parts.
    pub(crate) fn update(
        &mut self,
        kind: ObjectKind,
        name: &str,
        version: &str,
        change: &Change,
        now: i64,
    ) -> Result<(), Refusal> {
        let change = |kind| match kind {
            ObjectKind::Secret => self.secrets.update(name, Some(version), change.clone(), now).map(|_| ()),
            ObjectKind::Key => self.keys.update(name, Some(version), change.clone(), now).map(|_| ()),
            ObjectKind::Certificate => self.certificates.update(name, Some(version), change.clone(), now).map(|_| ()),
        };
        with_its_parts(kind, change)
    }

    /// Deletes from outside.
    pub(crate) fn delete(&mut self, kind: ObjectKind, name: &str, now: i64) -> Result<(), WorldError> {
        let delete = |kind| match kind {
            ObjectKind::Secret => self.secrets.delete(name, now).map(|_| ()),
            ObjectKind::Key => self.keys.delete(name, now).map(|_| ()),
            ObjectKind::Certificate => self.certificates.delete(name, now).map(|_| ()),
        };
        with_its_parts(kind, delete).map_err(|refusal| refused(refusal, name))
    }

    /// Purges from outside.
    pub(crate) fn purge(&mut self, kind: ObjectKind, name: &str) -> Result<(), WorldError> {
        let purge = |kind| match kind {
            ObjectKind::Secret => self.secrets.purge(name),
            ObjectKind::Key => self.keys.purge(name),
            ObjectKind::Certificate => self.certificates.purge(name),
        };
        with_its_parts(kind, purge).map_err(|refusal| refused(refusal, name))
    }
}

/// Does something to an object, and to a certificate's secret and key as far as they are there.
fn with_its_parts(kind: ObjectKind, mut act: impl FnMut(ObjectKind) -> Result<(), Refusal>) -> Result<(), Refusal> {
    act(kind)?;
    if kind == ObjectKind::Certificate {
        // A pending certificate has neither, and its secret may have been deleted before it.
        let _ = act(ObjectKind::Secret);
        let _ = act(ObjectKind::Key);
    }
    Ok(())
}

/// The version asked for or a random one, if it and the name are ones that Key Vault could hold.
fn checked_version(kind: ObjectKind, name: &str, version: Option<&str>) -> Result<String, WorldError> {
    if !names::is_object_name(name) {
        let what = match kind {
            ObjectKind::Secret => "secret name",
            ObjectKind::Key => "key name",
            ObjectKind::Certificate => "certificate name",
        };
        return Err(invalid(what, name, "1 to 127 letters, digits and hyphens"));
    }
    let version = version.map_or_else(random::hex_id, str::to_owned);
    if !names::is_version(&version) {
        return Err(invalid("version", &version, "32 lower-case hexadecimal digits"));
    }
    Ok(version)
}
