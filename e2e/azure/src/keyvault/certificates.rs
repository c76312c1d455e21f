//! The operations on certificates: get, list, import and update.
//!
//! An import sets the certificate, its secret and its key under one version, as the real service
//! does. A disabled certificate can be read; its secret cannot.

use super::errors::{KeyVaultError, label};
use super::paging::{list, list_versions};
use super::update::update;
use super::wire;
use crate::content::{CertificateMaterial, ObjectKind};
use crate::object::StoreError;
use crate::random;
use crate::request::keyvault::Verb;
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::vault::Vault;

/// Performs an operation that passed the checks of names and access.
pub(super) fn perform(
    request: &ParsedRequest,
    vault: &mut Vault,
    verb: &Verb,
    now: i64,
) -> Result<BufferedResponse, KeyVaultError> {
    match verb {
        Verb::Get { name, version } => get(vault, name, version.as_deref()),
        Verb::List => list(request, vault, &vault.certificates, wire::certificate_item),
        Verb::ListVersions { name } => {
            list_versions(request, vault, &vault.certificates, name, wire::certificate_version)
        }
        Verb::Import { name } => import(request, vault, name, now),
        Verb::Update { name, version } => {
            let found = vault.certificates.version(name, version.as_deref()).map(|(_, version)| version.id.clone());
            let version = update(request, vault, (ObjectKind::Certificate, name, version.as_deref()), found, now)?;
            get(vault, name, Some(&version))
        }
        Verb::Set { .. }
        | Verb::Delete { .. }
        | Verb::GetDeleted { .. }
        | Verb::ListDeleted
        | Verb::Recover { .. }
        | Verb::Purge { .. }
        | Verb::NotImplemented => Err(KeyVaultError::not_implemented()),
        Verb::NotAllowed { method, verb } => Err(KeyVaultError::not_allowed(method, verb)),
        Verb::Unknown => Err(KeyVaultError::no_such_path()),
    }
}

fn get(vault: &Vault, name: &str, version: Option<&str>) -> Result<BufferedResponse, KeyVaultError> {
    let found = vault.certificates.version(name, version);
    let (certificate, version) = found.map_err(|error| store_error(error, &label(name, version)))?;
    Ok(BufferedResponse::ok(&wire::certificate_bundle(vault, &certificate.name, version)))
}

fn import(request: &ParsedRequest, vault: &mut Vault, name: &str, now: i64) -> Result<BufferedResponse, KeyVaultError> {
    let mut body = wire::ObjectBody::parse(&request.body, ObjectKind::Certificate)?;
    let value = body.value.take().ok_or_else(|| KeyVaultError::bad_field("Property value is required."))?;
    let material = CertificateMaterial::read(&value, body.password.as_deref().unwrap_or_default());
    let version = random::hex_id();
    let material = material.ok_or_else(|| {
        KeyVaultError::bad_field("The specified PKCS#12 or PEM X.509 certificate content can not be read.")
    })?;
    let stored = vault.set_certificate(name, &version, &material, body.attributes(), now);
    stored.map_err(|error| store_error(error, name))?;
    get(vault, name, Some(&version))
}

fn store_error(error: StoreError, name: &str) -> KeyVaultError {
    KeyVaultError::store(ObjectKind::Certificate, error, name)
}
