//! Updates the attributes of a version of a key or a certificate.

use super::errors::{KeyVaultError, label};
use super::wire;
use crate::content::ObjectKind;
use crate::object::StoreError;
use crate::request::parsed::ParsedRequest;
use crate::vault::Vault;

/// Applies the attributes in the request's body; `found` is the id of the version in the store.
pub(super) fn update(
    request: &ParsedRequest,
    vault: &mut Vault,
    (kind, name, version): (ObjectKind, &str, Option<&str>),
    found: Result<String, StoreError>,
    now: i64,
) -> Result<String, KeyVaultError> {
    let change = wire::ObjectBody::parse(&request.body, kind)?.change();
    let label = label(name, version);
    let store_error = |error| KeyVaultError::store(kind, error, &label);
    let version = found.map_err(store_error)?;
    vault.update(kind, name, &version, &change, now).map_err(store_error)?;
    Ok(version)
}
