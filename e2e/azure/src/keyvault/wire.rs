//! Key Vault's JSON: encodes objects and decodes request bodies.
//!
//! Pure. Field names and their case are the service's; an optional field without a value is not
//! sent.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::errors::KeyVaultError;
use crate::content::{CertificateContent, Jwk, KeyContent, ObjectKind, SecretContent};
use crate::limits;
use crate::object::{Change, DeletedObject, Object, ObjectAttributes, RECOVERABLE_DAYS, Version};
use crate::vault::Vault;

/// The body of a set, an import or an update; each uses some of the fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectBody {
    /// Of secrets and certificates.
    pub(super) value: Option<String>,
    /// Of keys; private numbers are not parsed.
    pub(super) key: Option<Jwk>,
    /// The password of a certificate's PKCS#12.
    #[serde(rename = "pwd")]
    pub(super) password: Option<String>,
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

impl ObjectBody {
    /// The error does not quote the body.
    pub(super) fn parse(body: &[u8], kind: ObjectKind) -> Result<ObjectBody, KeyVaultError> {
        let parsed: ObjectBody = parse(body, kind)?;
        let tags = parsed.tags.as_ref().map_or(0, BTreeMap::len);
        if tags > limits::MAX_TAGS {
            return Err(KeyVaultError::bad_field(&format!("A {} can have 15 tags at most.", kind.noun())));
        }
        Ok(parsed)
    }

    pub(super) fn attributes(self) -> ObjectAttributes {
        ObjectAttributes {
            enabled: self.attributes.enabled.unwrap_or(true),
            not_before: self.attributes.nbf,
            expires: self.attributes.exp,
            content_type: self.content_type,
            tags: self.tags.unwrap_or_default(),
            ..ObjectAttributes::default()
        }
    }

    pub(super) fn change(self) -> Change {
        Change {
            enabled: self.attributes.enabled,
            not_before: self.attributes.nbf,
            expires: self.attributes.exp,
            content_type: self.content_type,
            tags: self.tags,
        }
    }
}

/// A version of a secret without its value, under its full id.
pub(super) fn secret_version(vault: &Vault, name: &str, version: &Version<SecretContent>) -> Value {
    let mut document = secret(version, full_id(vault, ObjectKind::Secret, name, &version.id));
    if version.content.managed {
        document["kid"] = json!(full_id(vault, ObjectKind::Key, name, &version.id));
    }
    document
}

/// A version of a secret with its value.
pub(super) fn secret_with_value(vault: &Vault, name: &str, version: &Version<SecretContent>) -> Value {
    let mut document = secret_version(vault, name, version);
    document["value"] = json!(version.content.value);
    document
}

/// A secret in a list: the attributes of the newest version, and an id without a version.
pub(super) fn secret_item(vault: &Vault, object: &Object<SecretContent>) -> Option<Value> {
    Some(secret(object.newest()?, vault.id("secrets", &object.name)))
}

/// A deleted secret; in a list its id has no version.
pub(super) fn deleted_item(vault: &Vault, deleted: &DeletedObject<SecretContent>, in_list: bool) -> Option<Value> {
    let name = &deleted.object.name;
    let mut document = if in_list {
        secret_item(vault, &deleted.object)?
    } else {
        secret_version(vault, name, deleted.object.newest()?)
    };
    document["recoveryId"] = json!(vault.id("deletedsecrets", name));
    document["deletedDate"] = json!(deleted.deleted);
    document["scheduledPurgeDate"] = json!(deleted.deleted + RECOVERABLE_DAYS * 24 * 3600);
    Some(document)
}

/// A key with its public half.
pub(super) fn key_bundle(vault: &Vault, name: &str, version: &Version<KeyContent>) -> Value {
    let mut key = json!(version.content.jwk);
    key["kid"] = json!(full_id(vault, ObjectKind::Key, name, &version.id));
    let mut document = common(version, json!({ "key": key }));
    if version.content.managed {
        document["managed"] = json!(true);
    }
    document
}

/// A version of a key in a list.
pub(super) fn key_version(vault: &Vault, name: &str, version: &Version<KeyContent>) -> Value {
    key(version, full_id(vault, ObjectKind::Key, name, &version.id))
}

/// A key in a list.
pub(super) fn key_item(vault: &Vault, object: &Object<KeyContent>) -> Option<Value> {
    Some(key(object.newest()?, vault.id("keys", &object.name)))
}

/// A certificate with its DER and policy.
pub(super) fn certificate_bundle(vault: &Vault, name: &str, version: &Version<CertificateContent>) -> Value {
    let mut document = certificate_version(vault, name, version);
    document["kid"] = json!(full_id(vault, ObjectKind::Key, name, &version.id));
    document["sid"] = json!(full_id(vault, ObjectKind::Secret, name, &version.id));
    if let Some(der) = &version.content.der {
        document["cer"] = json!(STANDARD.encode(der));
    }
    let content_type = &version.attributes.content_type;
    if let Some(content_type) = content_type {
        document["contentType"] = json!(content_type);
    }
    document["policy"] = json!({
        "id": format!("{}/policy", vault.id("certificates", name)),
        "key_props": { "exportable": true, "kty": version.content.kty, "reuse_key": false },
        "secret_props": { "contentType": content_type },
        "issuer": { "name": "Unknown" },
    });
    document
}

/// A version of a certificate in a list.
pub(super) fn certificate_version(vault: &Vault, name: &str, version: &Version<CertificateContent>) -> Value {
    certificate(version, full_id(vault, ObjectKind::Certificate, name, &version.id))
}

/// A certificate in a list.
pub(super) fn certificate_item(vault: &Vault, object: &Object<CertificateContent>) -> Option<Value> {
    Some(certificate(object.newest()?, vault.id("certificates", &object.name)))
}

fn secret(version: &Version<SecretContent>, id: String) -> Value {
    let mut document = common(version, json!({ "id": id }));
    if let Some(content_type) = &version.attributes.content_type {
        document["contentType"] = json!(content_type);
    }
    if version.content.managed {
        document["managed"] = json!(true);
    }
    document
}

fn key(version: &Version<KeyContent>, kid: String) -> Value {
    let mut document = common(version, json!({ "kid": kid }));
    if version.content.managed {
        document["managed"] = json!(true);
    }
    document
}

fn certificate(version: &Version<CertificateContent>, id: String) -> Value {
    let mut document = common(version, json!({ "id": id }));
    if let Some(der) = &version.content.der {
        document["x5t"] = json!(URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, der)));
    }
    document
}

fn full_id(vault: &Vault, kind: ObjectKind, name: &str, version: &str) -> String {
    format!("{}/{version}", vault.id(kind.collection(), name))
}

/// Adds the fields of every response about a version.
fn common<C>(version: &Version<C>, mut document: Value) -> Value {
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
    if !version.attributes.omit_attributes {
        document["attributes"] = attributes;
    }
    // Key Vault sends `"tags": {}` for an object without tags.
    document["tags"] = json!(version.attributes.tags);
    document
}

fn parse<T: DeserializeOwned>(body: &[u8], kind: ObjectKind) -> Result<T, KeyVaultError> {
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|_| KeyVaultError::bad_field(&format!("The request body is not a valid {}.", kind.noun())))
}
