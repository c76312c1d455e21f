//! The operations on secrets: get, list, set and update, and on deleted secrets.

use hyper::StatusCode;
use serde_json::json;

use super::errors::{KeyVaultError, label};
use super::paging::{PageRequest, list, list_page, list_versions};
use super::wire;
use crate::content::{ObjectKind, SecretContent};
use crate::limits;
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
        Verb::List => list(request, vault, &vault.secrets, wire::secret_item),
        Verb::ListVersions { name } => list_versions(request, vault, &vault.secrets, name, wire::secret_version),
        Verb::ListDeleted => {
            let page_request = PageRequest::read(request, vault)?;
            let page = vault.secrets.deleted_page(page_request.after(), page_request.size);
            let items = page.items.iter();
            let items = items.filter_map(|deleted| wire::deleted_item(vault, deleted, true));
            Ok(list_page(request, items.collect(), &page))
        }
        Verb::Set { name } => set(request, vault, name, now),
        Verb::Update { name, version } => update(request, vault, name, version.as_deref(), now),
        Verb::Delete { name } => {
            let deleted = vault.secrets.delete(name, now);
            deleted.map_err(|error| store_error(error, name))?;
            deleted_secret(vault, name)
        }
        Verb::GetDeleted { name } => deleted_secret(vault, name),
        Verb::Recover { name } => recover(vault, name),
        Verb::Purge { name } => {
            let purged = vault.secrets.purge(name);
            purged.map_err(|error| store_error(error, name))?;
            Ok(BufferedResponse::empty(StatusCode::NO_CONTENT))
        }
        Verb::Import { .. } | Verb::NotImplemented => Err(KeyVaultError::not_implemented()),
        Verb::NotAllowed { method, verb } => Err(KeyVaultError::not_allowed(method, verb)),
        Verb::Unknown => Err(KeyVaultError::no_such_path()),
    }
}

fn get(vault: &Vault, name: &str, version: Option<&str>) -> Result<BufferedResponse, KeyVaultError> {
    let found = vault.secrets.version(name, version);
    let (secret, version) = found.map_err(|error| store_error(error, &label(name, version)))?;
    if !version.attributes.enabled {
        return Err(KeyVaultError::disabled("get"));
    }
    Ok(BufferedResponse::ok(&wire::secret_with_value(vault, &secret.name, version)))
}

fn set(request: &ParsedRequest, vault: &mut Vault, name: &str, now: i64) -> Result<BufferedResponse, KeyVaultError> {
    let mut body = wire::ObjectBody::parse(&request.body, ObjectKind::Secret)?;
    let value = body.value.take().ok_or_else(|| KeyVaultError::bad_field("Property value is required."))?;
    if value.len() > limits::MAX_VALUE_BYTES {
        return Err(KeyVaultError::bad_field("The secret value is larger than 25600 bytes."));
    }
    let version = random::hex_id();
    let content = SecretContent { value, managed: false };
    let stored = vault.secrets.set(name, &version, content, body.attributes(), now);
    stored.map_err(|error| store_error(error, name))?;
    let found = vault.secrets.version(name, Some(&version));
    let (secret, version) = found.map_err(|error| store_error(error, name))?;
    Ok(BufferedResponse::ok(&wire::secret_with_value(vault, &secret.name, version)))
}

fn update(
    request: &ParsedRequest,
    vault: &mut Vault,
    name: &str,
    version: Option<&str>,
    now: i64,
) -> Result<BufferedResponse, KeyVaultError> {
    let change = wire::ObjectBody::parse(&request.body, ObjectKind::Secret)?.change();
    let label = label(name, version);
    let changed = vault.secrets.update(name, version, change, now);
    let version = changed.map(|(_, version)| version.id.clone()).map_err(|error| store_error(error, &label))?;
    let found = vault.secrets.version(name, Some(&version));
    let (secret, version) = found.map_err(|error| store_error(error, &label))?;
    Ok(BufferedResponse::ok(&wire::secret_version(vault, &secret.name, version)))
}

fn deleted_secret(vault: &Vault, name: &str) -> Result<BufferedResponse, KeyVaultError> {
    let deleted = vault.secrets.deleted(name);
    let deleted = deleted.map_err(|error| store_error(error, name))?;
    Ok(BufferedResponse::ok(&json!(wire::deleted_item(vault, deleted, false))))
}

fn recover(vault: &mut Vault, name: &str) -> Result<BufferedResponse, KeyVaultError> {
    let recovered = vault.secrets.recover(name);
    recovered.map_err(|error| store_error(error, name))?;
    let found = vault.secrets.version(name, None);
    let (secret, version) = found.map_err(|error| store_error(error, name))?;
    Ok(BufferedResponse::ok(&wire::secret_version(vault, &secret.name, version)))
}

fn store_error(error: StoreError, name: &str) -> KeyVaultError {
    KeyVaultError::store(ObjectKind::Secret, error, name)
}
