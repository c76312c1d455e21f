//! One vault: its grants, secrets, keys and certificates.
//!
//! The `put_` methods and their like set up a vault: they check their input, and their errors name
//! the fix. Requests change the stores from `keyvault`.
//!
//! # Guarantees
//!
//! A certificate's secret and key have its name and version, and are enabled, disabled, deleted and
//! purged with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{CertificateContent, CertificateMaterial, Jwk, KeyContent, ObjectKind, SecretContent};
use crate::error::{SetupError, invalid, store_error};
use crate::limits::{self, PAGE_SIZE};
use crate::object::{Change, ObjectAttributes, Store, StoreError};
use crate::permission::{Access, Permission};
use crate::random;

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
    /// Adds permissions of a client on all kinds of objects.
    pub(crate) fn grant(&mut self, client: &str, permissions: &[Permission]) {
        for kind in ObjectKind::ALL {
            self.grant_on(client, kind, permissions);
        }
    }

    /// Adds permissions of a client on one kind of objects.
    pub(crate) fn grant_on(&mut self, client: &str, kind: ObjectKind, permissions: &[Permission]) {
        let granted = self.grants.entry(client.to_ascii_lowercase()).or_default();
        granted.extend(permissions.iter().map(|&permission| (kind, permission)));
    }

    /// Removes permissions of a client on all kinds of objects.
    pub(crate) fn revoke(&mut self, client: &str, permissions: &[Permission]) {
        for kind in ObjectKind::ALL {
            self.revoke_on(client, kind, permissions);
        }
    }

    /// Removes permissions of a client on one kind of objects.
    pub(crate) fn revoke_on(&mut self, client: &str, kind: ObjectKind, permissions: &[Permission]) {
        if let Some(granted) = self.grants.get_mut(&client.to_ascii_lowercase()) {
            granted.retain(|(on, granted)| *on != kind || !permissions.contains(granted));
        }
    }

    pub(crate) fn allows(&self, client: &str, kind: ObjectKind, permission: Permission) -> bool {
        self.grants.get(client).is_some_and(|granted| granted.contains(&(kind, permission)))
    }

    /// The id of an object, without a version.
    pub(crate) fn id(&self, collection: &str, name: &str) -> String {
        format!("https://{}.{}/{collection}/{name}", self.name, self.suffix)
    }

    /// Sets the page size of lists.
    pub(crate) fn set_page_size(&mut self, size: usize) -> Result<(), SetupError> {
        if !(1..=PAGE_SIZE).contains(&size) {
            let rule = format!("from 1 to {PAGE_SIZE}");
            return Err(invalid("page size", &size.to_string(), &rule));
        }
        self.page_size = size;
        Ok(())
    }

    /// Sets a secret; without a version, under a random one, which it returns.
    pub(crate) fn put_secret(
        &mut self,
        name: &str,
        version: Option<&str>,
        value: &str,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<String, SetupError> {
        if value.len() > limits::MAX_VALUE_BYTES {
            let rule = format!("a value has at most {} bytes", limits::MAX_VALUE_BYTES);
            return Err(invalid("value of secret", name, &rule));
        }
        let version = checked_version(ObjectKind::Secret, name, version)?;
        let content = SecretContent { value: value.to_owned(), managed: false };
        let set = self.secrets.set(name, &version, content, attributes, now);
        set.map_err(|error| store_error(error, name))?;
        Ok(version)
    }

    pub(crate) fn put_key(
        &mut self,
        name: &str,
        version: Option<&str>,
        jwk: Jwk,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<String, SetupError> {
        let version = checked_version(ObjectKind::Key, name, version)?;
        let set = self.keys.set(name, &version, KeyContent { jwk, managed: false }, attributes, now);
        set.map_err(|error| store_error(error, name))?;
        Ok(version)
    }

    /// Sets a certificate with its secret and key.
    pub(crate) fn put_certificate(
        &mut self,
        name: &str,
        version: Option<&str>,
        material: &CertificateMaterial,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<String, SetupError> {
        let version = checked_version(ObjectKind::Certificate, name, version)?;
        self.set_certificate(name, &version, material, attributes, now).map_err(|error| store_error(error, name))?;
        Ok(version)
    }

    /// Sets a certificate, its secret and its key, or none of the three.
    pub(crate) fn set_certificate(
        &mut self,
        name: &str,
        version: &str,
        material: &CertificateMaterial,
        attributes: ObjectAttributes,
        now: i64,
    ) -> Result<(), StoreError> {
        if self.secrets.deleted(name).is_ok() || self.keys.deleted(name).is_ok() {
            return Err(StoreError::Deleted);
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

    /// Sets a certificate that its CA has not issued yet.
    pub(crate) fn put_pending_certificate(&mut self, name: &str, now: i64) -> Result<String, SetupError> {
        let version = checked_version(ObjectKind::Certificate, name, None)?;
        let attributes = ObjectAttributes { enabled: false, ..ObjectAttributes::default() };
        let content = CertificateContent { der: None, kty: "RSA".to_owned() };
        let set = self.certificates.set(name, &version, content, attributes, now);
        set.map_err(|error| store_error(error, name))?;
        Ok(version)
    }

    /// [`Vault::update`] for the set-up.
    pub(crate) fn change(
        &mut self,
        kind: ObjectKind,
        name: &str,
        version: &str,
        change: &Change,
        now: i64,
    ) -> Result<(), SetupError> {
        self.update(kind, name, version, change, now).map_err(|error| store_error(error, version))
    }

    /// Changes the attributes of a version, and those of a certificate's secret and key.
    pub(crate) fn update(
        &mut self,
        kind: ObjectKind,
        name: &str,
        version: &str,
        change: &Change,
        now: i64,
    ) -> Result<(), StoreError> {
        let change = |kind| match kind {
            ObjectKind::Secret => self.secrets.update(name, Some(version), change.clone(), now).map(|_| ()),
            ObjectKind::Key => self.keys.update(name, Some(version), change.clone(), now).map(|_| ()),
            ObjectKind::Certificate => self.certificates.update(name, Some(version), change.clone(), now).map(|_| ()),
        };
        with_its_parts(kind, change)
    }

    pub(crate) fn delete(&mut self, kind: ObjectKind, name: &str, now: i64) -> Result<(), SetupError> {
        let delete = |kind| match kind {
            ObjectKind::Secret => self.secrets.delete(name, now).map(|_| ()),
            ObjectKind::Key => self.keys.delete(name, now).map(|_| ()),
            ObjectKind::Certificate => self.certificates.delete(name, now).map(|_| ()),
        };
        with_its_parts(kind, delete).map_err(|error| store_error(error, name))
    }

    pub(crate) fn purge(&mut self, kind: ObjectKind, name: &str) -> Result<(), SetupError> {
        let purge = |kind| match kind {
            ObjectKind::Secret => self.secrets.purge(name),
            ObjectKind::Key => self.keys.purge(name),
            ObjectKind::Certificate => self.certificates.purge(name),
        };
        with_its_parts(kind, purge).map_err(|error| store_error(error, name))
    }
}

/// Applies a change to an object, and to a certificate's secret and key if they exist.
fn with_its_parts(
    kind: ObjectKind,
    mut act: impl FnMut(ObjectKind) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    act(kind)?;
    if kind == ObjectKind::Certificate {
        // A pending certificate has neither, and its secret can be deleted before it.
        let _ = act(ObjectKind::Secret);
        let _ = act(ObjectKind::Key);
    }
    Ok(())
}

/// The version or a random one, if Key Vault accepts it and the name.
fn checked_version(kind: ObjectKind, name: &str, version: Option<&str>) -> Result<String, SetupError> {
    if !limits::is_object_name(name) {
        let what = match kind {
            ObjectKind::Secret => "secret name",
            ObjectKind::Key => "key name",
            ObjectKind::Certificate => "certificate name",
        };
        return Err(invalid(what, name, "1 to 127 letters, digits and hyphens"));
    }
    let version = version.map_or_else(random::hex_id, str::to_owned);
    if !limits::is_version(&version) {
        return Err(invalid("version", &version, "32 lower-case hexadecimal digits"));
    }
    Ok(version)
}
