//! Admin calls on secrets, keys and certificates: set, change, delete, purge and list.
//!
//! They need no token and no permission, and they are not counted. No call returns a value: only
//! Key Vault's own API does.

use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::reply::{AdminResult, AzureState, json_response, no_content, parse};
use crate::azure::handle::Azure;
use crate::clock::now;
use crate::content::{CertificateMaterial, Jwk, ObjectKind};
use crate::error::{SetupError, invalid, store_error};
use crate::object::{Change, ObjectAttributes, Store, Version};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretBody {
    value: String,
    version: Option<String>,
    #[serde(default)]
    attributes: ObjectAttributes,
}

/// The segment `secrets`, `keys` or `certificates` of a path.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Collection(ObjectKind);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyBody {
    jwk: Jwk,
    version: Option<String>,
    #[serde(default)]
    attributes: ObjectAttributes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateBody {
    value: String,
    #[serde(default)]
    password: String,
    version: Option<String>,
    #[serde(default)]
    attributes: ObjectAttributes,
}

pub(super) async fn names(State(azure): AzureState, Path((vault, on)): Path<(String, Collection)>) -> AdminResult {
    let names = azure.change_vault(&vault, |vault| {
        Ok(match on.0 {
            ObjectKind::Secret => vault.secrets.names(),
            ObjectKind::Key => vault.keys.names(),
            ObjectKind::Certificate => vault.certificates.names(),
        })
    })?;
    Ok(json_response(&names))
}

pub(super) async fn set(
    State(azure): AzureState,
    Path((vault, on, name)): Path<(String, Collection, String)>,
    body: Bytes,
) -> AdminResult {
    let version = match on.0 {
        ObjectKind::Secret => set_secret(&azure, &vault, &name, parse(&body)?)?,
        ObjectKind::Key => set_key(&azure, &vault, &name, parse(&body)?)?,
        ObjectKind::Certificate => set_certificate(&azure, &vault, &name, &parse(&body)?)?,
    };
    Ok(json_response(&json!({ "version": version })))
}

fn set_secret(azure: &Azure, vault: &str, name: &str, body: SecretBody) -> Result<String, SetupError> {
    let version = body.version.as_deref();
    azure.change_vault(vault, |vault| vault.put_secret(name, version, &body.value, body.attributes, now()))
}

fn set_key(azure: &Azure, vault: &str, name: &str, body: KeyBody) -> Result<String, SetupError> {
    let version = body.version.as_deref();
    azure.change_vault(vault, |vault| vault.put_key(name, version, body.jwk, body.attributes, now()))
}

fn set_certificate(azure: &Azure, vault: &str, name: &str, body: &CertificateBody) -> Result<String, SetupError> {
    let rule = "PEM with a key and its certificate, or PKCS#12 in base64 with its password";
    let material =
        CertificateMaterial::read(&body.value, &body.password).ok_or_else(|| invalid("certificate", name, rule))?;
    let (version, attributes) = (body.version.as_deref(), body.attributes.clone());
    azure.change_vault(vault, |vault| vault.put_certificate(name, version, &material, attributes, now()))
}

pub(super) async fn change(
    State(azure): AzureState,
    Path((vault, on, name, version)): Path<(String, Collection, String, String)>,
    body: Bytes,
) -> AdminResult {
    let change: Change = parse(&body)?;
    azure.change_vault(&vault, |vault| vault.change(on.0, &name, &version, &change, now()))?;
    Ok(no_content())
}

pub(super) async fn delete(
    State(azure): AzureState,
    Path((vault, on, name)): Path<(String, Collection, String)>,
) -> AdminResult {
    azure.change_vault(&vault, |vault| vault.delete(on.0, &name, now()))?;
    Ok(no_content())
}

pub(super) async fn purge(State(azure): AzureState, Path((vault, name)): Path<(String, String)>) -> AdminResult {
    azure.change_vault(&vault, |vault| vault.purge(ObjectKind::Secret, &name))?;
    Ok(no_content())
}

pub(super) async fn versions(
    State(azure): AzureState,
    Path((vault, on, name)): Path<(String, Collection, String)>,
) -> AdminResult {
    let versions = azure.change_vault(&vault, |vault| match on.0 {
        ObjectKind::Secret => describe_all(&vault.secrets, &name),
        ObjectKind::Key => describe_all(&vault.keys, &name),
        ObjectKind::Certificate => describe_all(&vault.certificates, &name),
    })?;
    Ok(json_response(&versions))
}

fn describe_all<C>(store: &Store<C>, name: &str) -> Result<Vec<serde_json::Value>, SetupError> {
    let object = store.object(name).map_err(|error| store_error(error, name))?;
    Ok(object.versions().map(describe).collect())
}

fn describe<C>(version: &Version<C>) -> serde_json::Value {
    json!({
        "version": version.id,
        "enabled": version.attributes.enabled,
        "created": version.created,
        "updated": version.updated,
        "not_before": version.attributes.not_before,
        "expires": version.attributes.expires,
        "content_type": version.attributes.content_type,
        "tags": version.attributes.tags,
    })
}
