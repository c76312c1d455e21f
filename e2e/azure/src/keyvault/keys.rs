//! The operations on keys: get, list, import and update.
//!
//! Only the public half of a key leaves a vault. A disabled key can be read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::errors::{KeyVaultError, label};
use super::paging::{list, list_versions};
use super::update::update;
use super::wire;
use crate::content::{Jwk, KeyContent, ObjectKind};
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
        Verb::List => list(request, vault, &vault.keys, wire::key_item),
        Verb::ListVersions { name } => list_versions(request, vault, &vault.keys, name, wire::key_version),
        Verb::Import { name } => import(request, vault, name, now),
        Verb::Update { name, version } => {
            let found = vault.keys.version(name, version.as_deref()).map(|(_, version)| version.id.clone());
            let version = update(request, vault, (ObjectKind::Key, name, version.as_deref()), found, now)?;
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
    let found = vault.keys.version(name, version);
    let (key, version) = found.map_err(|error| store_error(error, &label(name, version)))?;
    Ok(BufferedResponse::ok(&wire::key_bundle(vault, &key.name, version)))
}

fn import(request: &ParsedRequest, vault: &mut Vault, name: &str, now: i64) -> Result<BufferedResponse, KeyVaultError> {
    let mut body = wire::ObjectBody::parse(&request.body, ObjectKind::Key)?;
    let jwk = body.key.take().ok_or_else(|| KeyVaultError::bad_field("Property key is required."))?;
    if !is_known(&jwk) {
        return Err(KeyVaultError::bad_field("The key is not an RSA, EC or oct key with its public numbers."));
    }
    let version = random::hex_id();
    let content = KeyContent { jwk, managed: false };
    let stored = vault.keys.set(name, &version, content, body.attributes(), now);
    stored.map_err(|error| store_error(error, name))?;
    get(vault, name, Some(&version))
}

/// Whether Key Vault accepts a key.
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

fn store_error(error: StoreError, name: &str) -> KeyVaultError {
    KeyVaultError::store(ObjectKind::Key, error, name)
}
