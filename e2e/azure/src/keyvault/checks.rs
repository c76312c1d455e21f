//! Checks the names in the path of a request, before its access.

use super::errors::KeyVaultError;
use crate::limits;
use crate::request::keyvault::{VaultOperation, Verb};

/// Refuses an unknown operation, and names and versions that Key Vault cannot have.
pub(super) fn check_names(operation: &VaultOperation) -> Result<(), KeyVaultError> {
    let method = match &operation.verb {
        Verb::Get { .. } | Verb::ListVersions { .. } => "GET",
        Verb::Update { .. } => "PATCH",
        Verb::Set { .. } => "PUT",
        Verb::Delete { .. } | Verb::Purge { .. } => "DELETE",
        Verb::Recover { .. } | Verb::Import { .. } => "POST",
        Verb::GetDeleted { .. } | Verb::List | Verb::ListDeleted => "GET",
        Verb::NotImplemented => return Err(KeyVaultError::not_implemented()),
        Verb::NotAllowed { method, verb } => return Err(KeyVaultError::not_allowed(method, verb)),
        Verb::Unknown => return Err(KeyVaultError::no_such_path()),
    };
    if let Some(name) = operation.object() {
        if !limits::is_name(name) || name.is_empty() {
            return Err(KeyVaultError::invalid_name(name));
        }
        // The real service parses a name that is too long as a verb.
        if !limits::is_object_name(name) {
            return Err(KeyVaultError::not_allowed(method, name));
        }
    }
    match operation.version() {
        Some(version) if !limits::is_version(version) => Err(KeyVaultError::not_allowed(method, version)),
        Some(_) | None => Ok(()),
    }
}
