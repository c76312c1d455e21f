//! The operations on secrets, once the caller is known to be allowed.
//!
//! Checks what is in the query and the body, calls the store, and words the answer.
//! Access was decided before, and faults come after.

use hyper::StatusCode;
use serde_json::json;

use super::errors::KeyVaultError;
use super::operation::Verb;
use super::paging::{PageRequest, list, list_page, list_versions};
use super::{label, names, ok, wire};
use crate::answer::Answer;
use crate::call::Call;
use crate::content::{ObjectKind, SecretContent};
use crate::object::Refusal;
use crate::random;
use crate::vault::Vault;

/// Does what is asked; the operation has passed its own checks.
pub(super) fn perform(call: &Call, vault: &mut Vault, verb: &Verb, now: i64) -> Result<Answer, KeyVaultError> {
    match verb {
        Verb::Get { name, version } => get(vault, name, version.as_deref()),
        Verb::List => list(call, vault, &vault.secrets, wire::secret_item),
        Verb::ListVersions { name } => list_versions(call, vault, &vault.secrets, name, wire::secret_version),
        Verb::ListDeleted => {
            let request = PageRequest::read(call, vault)?;
            let page = vault.secrets.deleted_page(request.after(), request.size);
            let items = page.items.iter();
            let items = items.filter_map(|deleted| wire::deleted_item(vault, deleted, true));
            Ok(list_page(call, items.collect(), &page))
        }
        Verb::Set { name } => set(call, vault, name, now),
        Verb::Update { name, version } => update(call, vault, name, version.as_deref(), now),
        Verb::Delete { name } => {
            let deleted = vault.secrets.delete(name, now);
            deleted.map_err(|refusal| refused(refusal, name))?;
            deleted_secret(vault, name)
        }
        Verb::GetDeleted { name } => deleted_secret(vault, name),
        Verb::Recover { name } => recover(vault, name),
        Verb::Purge { name } => {
            let purged = vault.secrets.purge(name);
            purged.map_err(|refusal| refused(refusal, name))?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        Verb::Import { .. } | Verb::NotImplemented => Err(KeyVaultError::not_implemented()),
        Verb::NotAllowed { method, verb } => Err(KeyVaultError::not_allowed(method, verb)),
        Verb::Unknown => Err(KeyVaultError::no_such_path()),
    }
}

fn get(vault: &Vault, name: &str, version: Option<&str>) -> Result<Answer, KeyVaultError> {
    let found = vault.secrets.version(name, version);
    let (secret, version) = found.map_err(|refusal| refused(refusal, &label(name, version)))?;
    if !version.attributes.enabled {
        return Err(KeyVaultError::disabled("get"));
    }
    Ok(ok(&wire::secret_with_value(vault, &secret.name, version)))
}

fn set(call: &Call, vault: &mut Vault, name: &str, now: i64) -> Result<Answer, KeyVaultError> {
    let mut body = wire::ObjectBody::parse(&call.body, ObjectKind::Secret)?;
    let value = body.value.take().ok_or_else(|| KeyVaultError::bad_field("Property value is required."))?;
    if value.len() > names::MAX_VALUE_BYTES {
        return Err(KeyVaultError::bad_field("The secret value is larger than 25600 bytes."));
    }
    let version = random::hex_id();
    let content = SecretContent { value, managed: false };
    let stored = vault.secrets.set(name, &version, content, body.attributes(), now);
    stored.map_err(|refusal| refused(refusal, name))?;
    let found = vault.secrets.version(name, Some(&version));
    let (secret, version) = found.map_err(|refusal| refused(refusal, name))?;
    Ok(ok(&wire::secret_with_value(vault, &secret.name, version)))
}

fn update(
    call: &Call,
    vault: &mut Vault,
    name: &str,
    version: Option<&str>,
    now: i64,
) -> Result<Answer, KeyVaultError> {
    let change = wire::ObjectBody::parse(&call.body, ObjectKind::Secret)?.change();
    let label = label(name, version);
    let changed = vault.secrets.update(name, version, change, now);
    let version = changed.map(|(_, version)| version.id.clone()).map_err(|refusal| refused(refusal, &label))?;
    let found = vault.secrets.version(name, Some(&version));
    let (secret, version) = found.map_err(|refusal| refused(refusal, &label))?;
    Ok(ok(&wire::secret_version(vault, &secret.name, version)))
}

fn deleted_secret(vault: &Vault, name: &str) -> Result<Answer, KeyVaultError> {
    let deleted = vault.secrets.deleted(name);
    let deleted = deleted.map_err(|refusal| refused(refusal, name))?;
    Ok(ok(&json!(wire::deleted_item(vault, deleted, false))))
}

fn recover(vault: &mut Vault, name: &str) -> Result<Answer, KeyVaultError> {
    let recovered = vault.secrets.recover(name);
    recovered.map_err(|refusal| refused(refusal, name))?;
    let found = vault.secrets.version(name, None);
    let (secret, version) = found.map_err(|refusal| refused(refusal, name))?;
    Ok(ok(&wire::secret_version(vault, &secret.name, version)))
}

fn refused(refusal: Refusal, name: &str) -> KeyVaultError {
    KeyVaultError::refused(ObjectKind::Secret, refusal, name)
}
