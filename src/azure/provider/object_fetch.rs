//! One object of a class: from its name to its files.
//!
//! Fetches the newest version, a pinned one, or as many as the class asks for, and renders each. An
//! object fails as a whole: the first version that fails is its error.

use tracing::warn;

use super::conversion::{Converted, Converter};
use super::error::Error;
use super::object::{ObjectSpec, ObjectType, Version};
use super::render::ObjectValue;
use super::versions::{ListedVersion, newest};
use crate::azure::keyvault::{self, NameError, ObjectName, ObjectVersionId, Vault, VaultKey, VersionInfo};
use crate::formats::encoding::base64url;
use crate::formats::jwk::Jwk;
use crate::model::{ClassRef, Conversion, ObjectVersion, SecretFile};

/// An object, and what its fetch needs.
#[derive(Clone, Copy)]
pub(super) struct ObjectFetch<'a> {
    pub(super) converter: Converter<'a>,
    pub(super) class: &'a ClassRef,
    pub(super) vault: &'a Vault,
    /// The vault's name as the class has it, for error texts.
    pub(super) vault_name: &'a str,
    pub(super) spec: &'a ObjectSpec,
}

/// The files of one object, and the versions that they hold.
#[derive(Default)]
pub struct FetchedObject {
    /// One file for each version, and more where a certificate's parts have their own.
    pub files: Vec<SecretFile>,
    /// The versions that the files came from.
    pub versions: Vec<ObjectVersion>,
    /// What the files were converted from, where that was expensive.
    pub conversions: Vec<Conversion>,
    /// When it expires, in seconds since 1970, if the vault has a date; of a history, the newest
    /// version.
    pub expires: Option<i64>,
}

/// One version as files, its id, and when it expires.
type FetchedVersion = (Converted, String, Option<i64>);

impl ObjectFetch<'_> {
    /// Fetches and renders the object.
    ///
    /// # Errors
    /// An invalid name, a version that the vault does not give, or a value that cannot be rendered.
    pub(super) async fn fetch(self) -> Result<FetchedObject, Error> {
        let name = ObjectName::new(&self.spec.name).map_err(|source| self.name("objectName", source))?;
        let mut fetched = FetchedObject::default();
        if self.spec.has_history() {
            let listed = self.vault.versions(kind(self.spec.object_type), &name).await;
            let listed = listed.map_err(|source| self.refused(self.spec.version_id(None), source))?;
            let listed: Vec<ListedVersion> = listed.iter().map(listed_version).collect();
            let versions = newest(self.spec, &listed);
            let versions = versions.map_err(|source| Error::Versions { class: self.class.clone(), source })?;
            for (index, version) in versions.iter().enumerate() {
                self.version(&name, Some(index), Some(version), &mut fetched).await?;
            }
        } else {
            let pinned = match &self.spec.version {
                Version::Latest => None,
                Version::Pinned(version) => Some(version.as_str()),
            };
            self.version(&name, None, pinned, &mut fetched).await?;
        }
        Ok(fetched)
    }

    /// Fetches and renders one version; `index` is its place in a history.
    async fn version(
        self,
        name: &ObjectName,
        index: Option<usize>,
        version: Option<&str>,
        fetched: &mut FetchedObject,
    ) -> Result<(), Error> {
        let version = version.map(ObjectVersionId::new).transpose();
        let version = version.map_err(|source| self.name("objectVersion", source))?;
        let id = self.spec.version_id(index);
        let (Converted { rendered, conversion }, version, expires) = self.get(name, index, version.as_ref()).await?;
        for warning in &rendered.warnings {
            warn!(class = %self.class, vault = self.vault_name, %warning, "an object is not rendered as the class asks");
        }
        fetched.files.extend(rendered.files);
        fetched.conversions.extend(conversion);
        fetched.versions.push(ObjectVersion { id, version });
        if index.unwrap_or_default() == 0 {
            fetched.expires = expires;
        }
        Ok(())
    }

    async fn get(
        self,
        name: &ObjectName,
        index: Option<usize>,
        version: Option<&ObjectVersionId>,
    ) -> Result<FetchedVersion, Error> {
        let refused = |source| self.refused(self.spec.version_id(index), source);
        let plain = |value: ObjectValue<'_>| self.converter.plain(self.spec, index, value);
        Ok(match self.spec.object_type {
            ObjectType::Secret => {
                let secret = self.vault.secret(name, version).await.map_err(refused)?;
                let converted = self.converter.secret(self.spec, index, &secret).await?;
                (converted, secret.version.clone(), secret.expires)
            }
            ObjectType::Key => {
                let key = self.vault.key(name, version).await.map_err(refused)?;
                (as_jwk(&key, |jwk| plain(ObjectValue::Key(jwk)))?, key.version.clone(), key.expires)
            }
            ObjectType::Certificate => {
                let certificate = self.vault.certificate(name, version).await.map_err(refused)?;
                (plain(ObjectValue::Certificate(&certificate.der))?, certificate.version.clone(), certificate.expires)
            }
        })
    }

    fn name(&self, field: &'static str, source: NameError) -> Error {
        Error::Name { class: self.class.clone(), field, source }
    }

    fn refused(&self, object: String, source: keyvault::Error) -> Error {
        Error::Vault { class: self.class.clone(), object: Some(object), source }
    }
}

/// Passes a key on as a JWK (RFC 7518 §6).
fn as_jwk<T>(key: &VaultKey, render: impl FnOnce(Jwk<'_>) -> T) -> T {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| base64url(bytes));
    let (n, e, x, y) = (text(&key.n), text(&key.e), text(&key.x), text(&key.y));
    render(Jwk {
        kty: Some(&key.kty),
        n: n.as_deref(),
        e: e.as_deref(),
        crv: key.crv.as_deref(),
        x: x.as_deref(),
        y: y.as_deref(),
    })
}

fn kind(object_type: ObjectType) -> keyvault::ObjectType {
    match object_type {
        ObjectType::Secret => keyvault::ObjectType::Secret,
        ObjectType::Key => keyvault::ObjectType::Key,
        ObjectType::Certificate => keyvault::ObjectType::Certificate,
    }
}

fn listed_version(listed: &VersionInfo) -> ListedVersion {
    let VersionInfo { version, enabled, created, has_attributes } = listed;
    ListedVersion { id: version.clone(), has_attributes: *has_attributes, enabled: *enabled, created: *created }
}
