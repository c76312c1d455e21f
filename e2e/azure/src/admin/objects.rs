//! Admin calls on secrets, keys and certificates: set, change, delete, purge, and list what is there.
//!
//! They need no token and no permission, and they are not counted.
//! Values go in and never come out: read them through Key Vault's own API.
//! Only setting differs between the kinds; the rest has the collection in its path.

use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::{Reply, Scene, done, json_reply, parse};
use crate::azure::Azure;
use crate::content::{Jwk, ObjectKind};
use crate::keyvault::read_material;
use crate::object::{Change, ObjectAttributes, Store, Version};
use crate::world::{WorldError, invalid, now, refused};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretBody {
    value: String,
    version: Option<String>,
    #[serde(default)]
    attributes: ObjectAttributes,
}

/// The part of the path that names a kind: `secrets`, `keys` or `certificates`.
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

pub(super) async fn names(State(azure): Scene, Path((vault, on)): Path<(String, Collection)>) -> Reply {
    let names = azure.vault(&vault, |vault| {
        Ok(match on.0 {
            ObjectKind::Secret => vault.secrets.names(),
            ObjectKind::Key => vault.keys.names(),
            ObjectKind::Certificate => vault.certificates.names(),
        })
    })?;
    Ok(json_reply(&names))
}

pub(super) async fn set(
    State(azure): Scene,
    Path((vault, on, name)): Path<(String, Collection, String)>,
    body: Bytes,
) -> Reply {
    let version = match on.0 {
        ObjectKind::Secret => set_secret(&azure, &vault, &name, parse(&body)?)?,
        ObjectKind::Key => set_key(&azure, &vault, &name, parse(&body)?)?,
        ObjectKind::Certificate => set_certificate(&azure, &vault, &name, &parse(&body)?)?,
    };
    Ok(json_reply(&json!({ "version": version })))
}

fn set_secret(azure: &Azure, vault: &str, name: &str, body: SecretBody) -> Result<String, WorldError> {
    let version = body.version.as_deref();
    azure.vault(vault, |vault| vault.put_secret(name, version, &body.value, body.attributes, now()))
}

fn set_key(azure: &Azure, vault: &str, name: &str, body: KeyBody) -> Result<String, WorldError> {
    let version = body.version.as_deref();
    azure.vault(vault, |vault| vault.put_key(name, version, body.jwk, body.attributes, now()))
}

fn set_certificate(azure: &Azure, vault: &str, name: &str, body: &CertificateBody) -> Result<String, WorldError> {
    let rule = "PEM with a key and its certificate, or PKCS#12 in base64 with its password";
    let material = read_material(&body.value, &body.password).ok_or_else(|| invalid("certificate", name, rule))?;
    let (version, attributes) = (body.version.as_deref(), body.attributes.clone());
    azure.vault(vault, |vault| vault.put_certificate(name, version, &material, attributes, now()))
}

pub(super) async fn change(
    State(azure): Scene,
    Path((vault, on, name, version)): Path<(String, Collection, String, String)>,
    body: Bytes,
) -> Reply {
    let change: Change = parse(&body)?;
    azure.vault(&vault, |vault| vault.change(on.0, &name, &version, &change, now()))?;
    Ok(done())
}

pub(super) async fn delete(State(azure): Scene, Path((vault, on, name)): Path<(String, Collection, String)>) -> Reply {
    azure.vault(&vault, |vault| vault.delete(on.0, &name, now()))?;
    Ok(done())
}

pub(super) async fn purge(State(azure): Scene, Path((vault, name)): Path<(String, String)>) -> Reply {
    azure.vault(&vault, |vault| vault.purge(ObjectKind::Secret, &name))?;
    Ok(done())
}

pub(super) async fn versions(
    State(azure): Scene,
    Path((vault, on, name)): Path<(String, Collection, String)>,
) -> Reply {
    let versions = azure.vault(&vault, |vault| match on.0 {
        ObjectKind::Secret => describe_all(&vault.secrets, &name),
        ObjectKind::Key => describe_all(&vault.keys, &name),
        ObjectKind::Certificate => describe_all(&vault.certificates, &name),
    })?;
    Ok(json_reply(&versions))
}

fn describe_all<C>(store: &Store<C>, name: &str) -> Result<Vec<serde_json::Value>, WorldError> {
    let object = store.object(name).map_err(|refusal| refused(refusal, name))?;
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
