//! The operations on keys: get, list, import, and new attributes.
//!
//! What Key Vault gives out is the public half; a disabled key can be read, and says that it is.
//! Access was decided before, and faults come after.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::errors::KeyVaultError;
use super::operation::Verb;
use super::paging::{list, list_versions};
use super::{label, ok, update, wire};
use crate::answer::Answer;
use crate::call::Call;
use crate::content::{Jwk, KeyContent, ObjectKind};
use crate::object::Refusal;
use crate::random;
use crate::vault::Vault;

/// Does what is asked; the operation has passed its own checks.
pub(super) fn perform(call: &Call, vault: &mut Vault, verb: &Verb, now: i64) -> Result<Answer, KeyVaultError> {
    match verb {
        Verb::Get { name, version } => get(vault, name, version.as_deref()),
        Verb::List => list(call, vault, &vault.keys, wire::key_item),
        Verb::ListVersions { name } => list_versions(call, vault, &vault.keys, name, wire::key_version),
        Verb::Import { name } => import(call, vault, name, now),
        Verb::Update { name, version } => {
            let found = vault.keys.version(name, version.as_deref()).map(|(_, version)| version.id.clone());
            let version = update(call, vault, (ObjectKind::Key, name, version.as_deref()), found, now)?;
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
    let found = vault.keys.version(name, version);
    let (key, version) = found.map_err(|refusal| refused(refusal, &label(name, version)))?;
    Ok(ok(&wire::key_bundle(vault, &key.name, version)))
}

fn import(call: &Call, vault: &mut Vault, name: &str, now: i64) -> Result<Answer, KeyVaultError> {
    let mut body = wire::ObjectBody::parse(&call.body, ObjectKind::Key)?;
    let jwk = body.key.take().ok_or_else(|| KeyVaultError::bad_field("Property key is required."))?;
    if !is_known(&jwk) {
        return Err(KeyVaultError::bad_field("The key is not an RSA, EC or oct key with its public numbers."));
    }
    let version = random::hex_id();
    let content = KeyContent { jwk, managed: false };
    let stored = vault.keys.set(name, &version, content, body.attributes(), now);
    stored.map_err(|refusal| refused(refusal, name))?;
    get(vault, name, Some(&version))
}

/// Whether a key is one that Key Vault would take.
fn is_known(jwk: &Jwk) -> bool {
    let numbers = |all: [&Option<String>; 2]| {
        all.iter().all(|number| number.as_ref().is_some_and(|text| URL_SAFE_NO_PAD.decode(text).is_ok()))
    };
    let curve = jwk.crv.as_deref().is_some_and(|crv| ["P-256", "P-384", "P-521", "P-256K"].contains(&crv));
    match jwk.kty.as_str() {
        "RSA" | "RSA-HSM" => numbers([&jwk.n, &jwk.e]),
        "EC" | "EC-HSM" => curve && numbers([&jwk.x, &jwk.y]),
        "oct" | "oct-HSM" => true,
        _ => false,
    }
}

fn refused(refusal: Refusal, name: &str) -> KeyVaultError {
    KeyVaultError::refused(ObjectKind::Key, refusal, name)
}
