//! The operations on secrets, once the caller is known to be allowed.
//!
//! Checks what is in the query and the body, calls the store, and words the answer.
//! Access was decided before, and faults come after.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::errors::KeyVaultError;
use super::operation::Operation;
use super::{names, wire};
use crate::answer::Answer;
use crate::call::Call;
use crate::random;
use crate::secret::Page;
use crate::world::{PAGE_SIZE, Vault};

/// Does what is asked; `operation` has passed its own checks.
pub(super) fn perform(
    call: &Call,
    vault: &mut Vault,
    operation: &Operation,
    now: i64,
) -> Result<Answer, KeyVaultError> {
    match operation {
        Operation::Get { name, version } => get(vault, name, version.as_deref()),
        Operation::List => {
            let request = PageRequest::read(call, vault)?;
            let page = vault.secrets.page(request.after(), request.size);
            let items = page.items.iter();
            let items = items.filter_map(|secret| wire::secret_item(vault, secret));
            Ok(list_page(call, items.collect(), &page))
        }
        Operation::ListVersions { name } => {
            let request = PageRequest::read(call, vault)?;
            let page = vault.secrets.version_page(name, request.after(), request.size);
            let items = page.items.iter();
            let items = items.map(|version| wire::version_item(vault, name, version));
            Ok(list_page(call, items.collect(), &page))
        }
        Operation::ListDeleted => {
            let request = PageRequest::read(call, vault)?;
            let page = vault.secrets.deleted_page(request.after(), request.size);
            let items = page.items.iter();
            let items = items.filter_map(|deleted| wire::deleted_item(vault, deleted, true));
            Ok(list_page(call, items.collect(), &page))
        }
        Operation::Set { name } => set(call, vault, name, now),
        Operation::Update { name, version } => update(call, vault, name, version.as_deref(), now),
        Operation::Delete { name } => {
            let deleted = vault.secrets.delete(name, now);
            deleted.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
            deleted_secret(vault, name)
        }
        Operation::GetDeleted { name } => deleted_secret(vault, name),
        Operation::Recover { name } => recover(vault, name),
        Operation::Purge { name } => {
            let purged = vault.secrets.purge(name);
            purged.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        Operation::NotAllowed { method, verb } => Err(KeyVaultError::not_allowed(method, verb)),
        Operation::Unknown => Err(KeyVaultError::no_such_path()),
    }
}

fn get(vault: &Vault, name: &str, version: Option<&str>) -> Result<Answer, KeyVaultError> {
    let found = vault.secrets.version(name, version);
    let (secret, version) = found.map_err(|refusal| KeyVaultError::refused(refusal, &label(name, version)))?;
    if !version.attributes.enabled {
        return Err(KeyVaultError::disabled("get"));
    }
    Ok(ok(&wire::version_with_value(vault, &secret.name, version)))
}

fn set(call: &Call, vault: &mut Vault, name: &str, now: i64) -> Result<Answer, KeyVaultError> {
    let mut body = wire::SecretBody::parse(&call.body)?;
    let value = body.value.take().ok_or_else(|| KeyVaultError::bad_field("Property value is required."))?;
    if value.len() > names::MAX_VALUE_BYTES {
        return Err(KeyVaultError::bad_field("The secret value is larger than 25600 bytes."));
    }
    let version = random::hex_id();
    let stored = vault.secrets.set(name, &version, &value, body.attributes(), now);
    stored.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
    let found = vault.secrets.version(name, Some(&version));
    let (secret, version) = found.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
    Ok(ok(&wire::version_with_value(vault, &secret.name, version)))
}

fn update(
    call: &Call,
    vault: &mut Vault,
    name: &str,
    version: Option<&str>,
    now: i64,
) -> Result<Answer, KeyVaultError> {
    let change = wire::SecretBody::parse(&call.body)?.change();
    let label = label(name, version);
    let changed = vault.secrets.update(name, version, change, now);
    let version =
        changed.map(|(_, version)| version.id.clone()).map_err(|refusal| KeyVaultError::refused(refusal, &label))?;
    let found = vault.secrets.version(name, Some(&version));
    let (secret, version) = found.map_err(|refusal| KeyVaultError::refused(refusal, &label))?;
    Ok(ok(&wire::version_item(vault, &secret.name, version)))
}

fn deleted_secret(vault: &Vault, name: &str) -> Result<Answer, KeyVaultError> {
    let deleted = vault.secrets.deleted(name);
    let deleted = deleted.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
    Ok(ok(&json!(wire::deleted_item(vault, deleted, false))))
}

fn recover(vault: &mut Vault, name: &str) -> Result<Answer, KeyVaultError> {
    let recovered = vault.secrets.recover(name);
    recovered.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
    let found = vault.secrets.version(name, None);
    let (secret, version) = found.map_err(|refusal| KeyVaultError::refused(refusal, name))?;
    Ok(ok(&wire::version_item(vault, &secret.name, version)))
}

/// Which part of a list is asked for.
struct PageRequest {
    after: Option<String>,
    size: usize,
}

impl PageRequest {
    fn read(call: &Call, vault: &Vault) -> Result<PageRequest, KeyVaultError> {
        let after = match call.query.get("$skiptoken") {
            None => None,
            Some(token) => {
                Some(wire::read_skip_token(token).ok_or_else(|| KeyVaultError::bad_field("Invalid skiptoken."))?)
            }
        };
        let wanted = match call.query.get("maxresults") {
            None => PAGE_SIZE,
            Some(number) => number
                .parse()
                .ok()
                .filter(|number| (1..=PAGE_SIZE).contains(number))
                .ok_or_else(|| KeyVaultError::bad_field("maxresults must be between 1 and 25 inclusive."))?,
        };
        Ok(PageRequest { after, size: wanted.min(vault.page_size) })
    }

    fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }
}

/// A page with the address of the next one, which names the port as the real service does.
fn list_page<T>(call: &Call, items: Vec<Value>, page: &Page<'_, T>) -> Answer {
    let next = page.next.as_deref().map(|after| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for key in ["api-version", "maxresults"] {
            if let Some(value) = call.query.get(key) {
                query.append_pair(key, value);
            }
        }
        let port = call.port.unwrap_or(443);
        let path = call.path.trim_end_matches('/');
        let token = wire::skip_token(after);
        format!("https://{}:{port}{path}?{}&$skiptoken={token}", call.host, query.finish())
    });
    ok(&json!({ "value": items, "nextLink": next }))
}

fn ok(document: &Value) -> Answer {
    Answer::json(StatusCode::OK, document)
}

fn label(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{name}/{version}"),
        None => name.to_owned(),
    }
}
