//! The operations on certificates: get, list, import, and new attributes.
//!
//! An import sets the certificate, its secret and its key under one version, as the real service does.
//! A disabled certificate can be read, and says that it is; its secret cannot.
//! Access was decided before, and faults come after.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::errors::KeyVaultError;
use super::operation::Verb;
use super::paging::{PageRequest, list_page};
use super::{label, ok, wire};
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
        Verb::List => {
            let request = PageRequest::read(call, vault)?;
            let page = vault.certificates.page(request.after(), request.size);
            let items = page.items.iter();
            let items = items.filter_map(|certificate| wire::certificate_item(vault, certificate));
            Ok(list_page(call, items.collect(), &page))
        }
        Verb::ListVersions { name } => {
            let request = PageRequest::read(call, vault)?;
            let page = vault.certificates.version_page(name, request.after(), request.size);
            let items = page.items.iter();
            let items = items.map(|version| wire::certificate_version(vault, name, version));
            Ok(list_page(call, items.collect(), &page))
        }
        Verb::Import { name } => import(call, vault, name, now),
        Verb::Update { name, version } => update(call, vault, name, version.as_deref(), now),
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

fn update(
    call: &Call,
    vault: &mut Vault,
    name: &str,
    version: Option<&str>,
    now: i64,
) -> Result<Answer, KeyVaultError> {
    let change = wire::ObjectBody::parse(&call.body, ObjectKind::Certificate)?.change();
    let label = label(name, version);
    let found = vault.certificates.version(name, version);
    let version = found.map(|(_, version)| version.id.clone()).map_err(|refusal| refused(refusal, &label))?;
    let changed = vault.update(ObjectKind::Certificate, name, &version, &change, now);
    changed.map_err(|refusal| refused(refusal, &label))?;
    get(vault, name, Some(&version))
}

fn refused(refusal: Refusal, name: &str) -> KeyVaultError {
    KeyVaultError::refused(ObjectKind::Certificate, refusal, name)
}
