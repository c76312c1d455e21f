//! Admin calls on secrets: set, change, delete, purge, and list what is there.
//!
//! They need no token and no permission, and they are not counted.
//! Values go in and never come out: read them through Key Vault's own API.

use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::{Reply, Scene, done, json_reply, parse};
use crate::secret::{SecretAttributes, SecretChange, Version};
use crate::world::{now, refused};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretBody {
    value: String,
    version: Option<String>,
    #[serde(default)]
    attributes: SecretAttributes,
}

pub(super) async fn names(State(azure): Scene, Path(vault): Path<String>) -> Reply {
    let names = azure.vault(&vault, |vault| Ok(vault.secrets.names()))?;
    Ok(json_reply(&names))
}

pub(super) async fn set(State(azure): Scene, Path((vault, name)): Path<(String, String)>, body: Bytes) -> Reply {
    let body: SecretBody = parse(&body)?;
    let version = azure.vault(&vault, |vault| {
        let version = body.version.as_deref();
        vault.put_secret(&name, version, &body.value, body.attributes, now())
    })?;
    Ok(json_reply(&json!({ "version": version })))
}

pub(super) async fn change(
    State(azure): Scene,
    Path((vault, name, version)): Path<(String, String, String)>,
    body: Bytes,
) -> Reply {
    let change: SecretChange = parse(&body)?;
    azure.vault(&vault, |vault| vault.change_secret(&name, Some(&version), change, now()))?;
    Ok(done())
}

pub(super) async fn delete(State(azure): Scene, Path((vault, name)): Path<(String, String)>) -> Reply {
    azure.vault(&vault, |vault| vault.delete_secret(&name, now()))?;
    Ok(done())
}

pub(super) async fn purge(State(azure): Scene, Path((vault, name)): Path<(String, String)>) -> Reply {
    azure.vault(&vault, |vault| vault.purge_secret(&name))?;
    Ok(done())
}

pub(super) async fn versions(State(azure): Scene, Path((vault, name)): Path<(String, String)>) -> Reply {
    let versions = azure.vault(&vault, |vault| {
        let secret = vault.secrets.secret(&name);
        let secret = secret.map_err(|refusal| refused(refusal, &name))?;
        Ok(secret.versions().map(describe).collect::<Vec<_>>())
    })?;
    Ok(json_reply(&versions))
}

fn describe(version: &Version) -> serde_json::Value {
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
