//! The operations on certificates: get, list, import, and new attributes.
//!
//! An import sets the certificate, its secret and its key under one version, as the real service does.
//! A disabled certificate can be read, and says that it is; its secret cannot.
//! Access was decided before, and faults come after.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::errors::KeyVaultError;
use super::operation::Verb;
use super::paging::{list, list_versions};
use super::{label, ok, update, wire};
use crate::answer::Answer;
use crate::call::Call;
use crate::content::{CertificateMaterial, ObjectKind};
use crate::object::Refusal;
use crate::random;
use crate::vault::Vault;

/// Does what is asked; the operation has passed its own checks.
pub(super) fn perform(call: &Call, vault: &mut Vault, verb: &Verb, now: i64) -> Result<Answer, KeyVaultError> {
    match verb {
        Verb::Get { name, version } => get(vault, name, version.as_deref()),
        Verb::List => list(call, vault, &vault.certificates, wire::certificate_item),
        Verb::ListVersions { name } => list_versions(call, vault, &vault.certificates, name, wire::certificate_version),
        Verb::Import { name } => import(call, vault, name, now),
        Verb::Update { name, version } => {
            let found = vault.certificates.version(name, version.as_deref()).map(|(_, version)| version.id.clone());
            let version = update(call, vault, (ObjectKind::Certificate, name, version.as_deref()), found, now)?;
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

fn get(vault: &Vault, name: &str, version: Option<&str>) -> Result<Answer, KeyVaultError> {
    let found = vault.certificates.version(name, version);
    let (certificate, version) = found.map_err(|refusal| refused(refusal, &label(name, version)))?;
    Ok(ok(&wire::certificate_bundle(vault, &certificate.name, version)))
}

fn import(call: &Call, vault: &mut Vault, name: &str, now: i64) -> Result<Answer, KeyVaultError> {
    let mut body = wire::ObjectBody::parse(&call.body, ObjectKind::Certificate)?;
    let value = body.value.take().ok_or_else(|| KeyVaultError::bad_field("Property value is required."))?;
    let material = read_material(&value, body.password.as_deref().unwrap_or_default());
    let version = random::hex_id();
    let material = material.ok_or_else(|| {
        KeyVaultError::bad_field("The specified PKCS#12 or PEM X.509 certificate content can not be read.")
    })?;
    let stored = vault.set_certificate(name, &version, &material, body.attributes(), now);
    stored.map_err(|refusal| refused(refusal, name))?;
    get(vault, name, Some(&version))
}

/// PEM as it is or in base64, which is how Microsoft's SDKs send it, or PKCS#12 in base64.
pub(crate) fn read_material(value: &str, password: &str) -> Option<CertificateMaterial> {
    const PEM_START: &str = "-----BEGIN";
    if value.contains(PEM_START) {
        return CertificateMaterial::from_pem(value).ok();
    }
    let bytes = STANDARD.decode(value).ok()?;
    match std::str::from_utf8(&bytes) {
        Ok(pem) if pem.contains(PEM_START) => CertificateMaterial::from_pem(pem).ok(),
        Ok(_) | Err(_) => CertificateMaterial::from_pfx(&bytes, password).ok(),
    }
}

fn refused(refusal: Refusal, name: &str) -> KeyVaultError {
    KeyVaultError::refused(ObjectKind::Certificate, refusal, name)
}
