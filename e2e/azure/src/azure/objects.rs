//! Set-up of the secrets, keys and certificates of vaults.
//!
//! The methods need no token and no permission, and are not counted. Every change of a certificate
//! also changes its secret and its key.

use super::handle::{Azure, must};
use crate::clock::now;
use crate::content::{CertificateMaterial, Jwk, ObjectKind};
use crate::object::{Change, ObjectAttributes};

impl Azure {
    /// Sets a secret and returns the new version.
    ///
    /// # Panics
    /// If the vault was not added, the name or value is not valid, or the secret is deleted.
    #[track_caller]
    pub fn set_secret(&self, vault: &str, name: &str, value: &str) -> String {
        let attributes = ObjectAttributes::default();
        must(self.change_vault(vault, |vault| vault.put_secret(name, None, value, attributes, now())))
    }

    /// Sets a secret under this version, 32 lower-case hexadecimal digits.
    ///
    /// # Panics
    /// As [`Azure::set_secret`], and if the version is not valid.
    #[track_caller]
    pub fn set_secret_version(
        &self,
        vault: &str,
        name: &str,
        version: &str,
        value: &str,
        attributes: ObjectAttributes,
    ) {
        let version = Some(version);
        must(self.change_vault(vault, |vault| vault.put_secret(name, version, value, attributes, now())));
    }

    /// Disables a version, so that reading it is forbidden.
    ///
    /// # Panics
    /// If the vault or the version does not exist.
    #[track_caller]
    pub fn disable_secret(&self, vault: &str, name: &str, version: &str) {
        self.set_object_enabled(vault, ObjectKind::Secret, name, version, false);
    }

    /// Enables a version.
    ///
    /// # Panics
    /// If the vault or the version does not exist.
    #[track_caller]
    pub fn enable_secret(&self, vault: &str, name: &str, version: &str) {
        self.set_object_enabled(vault, ObjectKind::Secret, name, version, true);
    }

    /// Deletes a secret with all its versions; it stays recoverable.
    ///
    /// # Panics
    /// If the vault or the secret does not exist.
    #[track_caller]
    pub fn delete_secret(&self, vault: &str, name: &str) {
        self.delete_object(vault, ObjectKind::Secret, name);
    }

    /// Purges a deleted secret.
    ///
    /// # Panics
    /// If the vault does not exist or has no such deleted secret.
    #[track_caller]
    pub fn purge_secret(&self, vault: &str, name: &str) {
        self.purge_object(vault, ObjectKind::Secret, name);
    }

    /// Sets a key and returns the new version.
    ///
    /// # Panics
    /// If the vault was not added or the name is not valid.
    #[track_caller]
    pub fn set_key(&self, vault: &str, name: &str, key: Jwk) -> String {
        let attributes = ObjectAttributes::default();
        must(self.change_vault(vault, |vault| vault.put_key(name, None, key, attributes, now())))
    }

    /// Sets a key under this version.
    ///
    /// # Panics
    /// As [`Azure::set_key`], and if the version is not valid.
    #[track_caller]
    pub fn set_key_version(&self, vault: &str, name: &str, version: &str, key: Jwk, attributes: ObjectAttributes) {
        must(self.change_vault(vault, |vault| vault.put_key(name, Some(version), key, attributes, now())));
    }

    /// Sets a certificate with its secret and its key, and returns the version of all three.
    ///
    /// # Panics
    /// If the vault was not added, the name is not valid, or an object of the name is deleted.
    #[track_caller]
    pub fn set_certificate(&self, vault: &str, name: &str, material: &CertificateMaterial) -> String {
        let attributes = ObjectAttributes::default();
        must(self.change_vault(vault, |vault| vault.put_certificate(name, None, material, attributes, now())))
    }

    /// Sets a certificate under this version. The content type in `attributes` is ignored.
    ///
    /// # Panics
    /// As [`Azure::set_certificate`], and if the version is not valid.
    #[track_caller]
    pub fn set_certificate_version(
        &self,
        vault: &str,
        name: &str,
        version: &str,
        material: &CertificateMaterial,
        attributes: ObjectAttributes,
    ) {
        let version = Some(version);
        must(self.change_vault(vault, |vault| vault.put_certificate(name, version, material, attributes, now())));
    }

    /// Sets a certificate that its CA has not issued yet: disabled, and without `cer`.
    ///
    /// # Panics
    /// If the vault was not added or the name is not valid.
    #[track_caller]
    pub fn set_pending_certificate(&self, vault: &str, name: &str) -> String {
        must(self.change_vault(vault, |vault| vault.put_pending_certificate(name, now())))
    }

    /// Enables or disables a version of any kind.
    ///
    /// # Panics
    /// If the vault or the version does not exist.
    #[track_caller]
    pub fn set_object_enabled(&self, vault: &str, kind: ObjectKind, name: &str, version: &str, enabled: bool) {
        let change = Change { enabled: Some(enabled), ..Change::default() };
        must(self.change_vault(vault, |vault| vault.change(kind, name, version, &change, now())));
    }

    /// Deletes an object of any kind with all its versions.
    ///
    /// # Panics
    /// If the vault or the object does not exist.
    #[track_caller]
    pub fn delete_object(&self, vault: &str, kind: ObjectKind, name: &str) {
        must(self.change_vault(vault, |vault| vault.delete(kind, name, now())));
    }

    /// Purges a deleted object of any kind.
    ///
    /// # Panics
    /// If the vault does not exist or has no such deleted object.
    #[track_caller]
    pub fn purge_object(&self, vault: &str, kind: ObjectKind, name: &str) {
        must(self.change_vault(vault, |vault| vault.purge(kind, name)));
    }
}
