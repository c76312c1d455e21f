//! Key Vault's JSON: secrets going out, settings coming in, and the markers between list pages.
//!
//! Pure. Field names and their case are the service's; optional fields are left out when unset.
//! `secrets` decides what to send and what to store.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::KeyVaultError;
use super::names;
use crate::secret::{DeletedSecret, RECOVERABLE_DAYS, Secret, SecretAttributes, SecretChange, Version};
use crate::world::Vault;

/// The body of a set or an update.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecretBody {
    pub(super) value: Option<String>,
    content_type: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    attributes: AttributesBody,
}

#[derive(Debug, Default, Deserialize)]
struct AttributesBody {
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
}

impl SecretBody {
    /// Parses a body; the refusal does not repeat any of it.
    pub(super) fn parse(body: &[u8]) -> Result<SecretBody, KeyVaultError> {
        let parsed: SecretBody = serde_json::from_slice(body)
            .map_err(|_| KeyVaultError::bad_field("The request body is not a valid secret."))?;
        let tags = parsed.tags.as_ref().map_or(0, BTreeMap::len);
        if tags > names::MAX_TAGS {
            return Err(KeyVaultError::bad_field("A secret can have 15 tags at most."));
        }
        Ok(parsed)
    }

    /// The attributes of a new version.
    pub(super) fn attributes(self) -> SecretAttributes {
        SecretAttributes {
            enabled: self.attributes.enabled.unwrap_or(true),
            not_before: self.attributes.nbf,
            expires: self.attributes.exp,
            content_type: self.content_type,
            tags: self.tags.unwrap_or_default(),
            ..SecretAttributes::default()
        }
    }

    /// The change to an existing version.
    pub(super) fn change(self) -> SecretChange {
        SecretChange {
            enabled: self.attributes.enabled,
            not_before: self.attributes.nbf,
            expires: self.attributes.exp,
            content_type: self.content_type,
            tags: self.tags,
        }
    }
}

/// A version without its value, under its full id.
pub(super) fn version_item(vault: &Vault, name: &str, version: &Version) -> Value {
    item(format!("{}/{}", id(vault, "secrets", name), version.id), version)
}

/// A version with its value.
pub(super) fn version_with_value(vault: &Vault, name: &str, version: &Version) -> Value {
    let mut document = version_item(vault, name, version);
    document["value"] = json!(version.value);
    document
}

/// A secret in a list: the newest version's attributes under an id without a version.
pub(super) fn secret_item(vault: &Vault, secret: &Secret) -> Option<Value> {
    let newest = secret.newest()?;
    Some(item(id(vault, "secrets", &secret.name), newest))
}

/// A deleted secret; lists leave the version out of its id.
pub(super) fn deleted_item(vault: &Vault, deleted: &DeletedSecret, in_list: bool) -> Option<Value> {
    let name = &deleted.secret.name;
    let newest = deleted.secret.newest()?;
    let mut document =
        if in_list { item(id(vault, "secrets", name), newest) } else { version_item(vault, name, newest) };
    document["recoveryId"] = json!(id(vault, "deletedsecrets", name));
    document["deletedDate"] = json!(deleted.deleted);
    document["scheduledPurgeDate"] = json!(deleted.deleted + RECOVERABLE_DAYS * 24 * 3600);
    Some(document)
}

/// The opaque marker in a `nextLink`, in the form that the real service has.
pub(super) fn skip_token(after: &str) -> String {
    let marker = json!({ "NextMarker": after, "TargetLocation": 0 });
    URL_SAFE_NO_PAD.encode(marker.to_string())
}

/// The key in a marker made by [`skip_token`].
pub(super) fn read_skip_token(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "NextMarker")]
        next: String,
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    serde_json::from_slice::<Marker>(&bytes).ok().map(|marker| marker.next)
}

fn id(vault: &Vault, collection: &str, name: &str) -> String {
    format!("https://{}.{}/{collection}/{name}", vault.name, vault.suffix)
}

fn item(id: String, version: &Version) -> Value {
    let mut attributes = json!({
        "enabled": version.attributes.enabled,
        "created": version.created,
        "updated": version.updated,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": RECOVERABLE_DAYS,
    });
    if let Some(not_before) = version.attributes.not_before {
        attributes["nbf"] = json!(not_before);
    }
    if let Some(expires) = version.attributes.expires {
        attributes["exp"] = json!(expires);
    }
    let mut document = json!({ "id": id, "attributes": attributes });
    if let Some(content_type) = &version.attributes.content_type {
        document["contentType"] = json!(content_type);
    }
    // Key Vault sends `"tags": {}` where a secret has none.
    document["tags"] = json!(version.attributes.tags);
    document
}
