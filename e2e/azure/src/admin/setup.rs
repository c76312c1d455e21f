//! Admin calls on tenants, clients, vaults, grants, latency and the seed.
//!
//! The checks are those of `state` and `vault`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::reply::{AdminResult, AzureState, no_content, parse};
use crate::content::ObjectKind;
use crate::permission::{Access, Permission};
use crate::seed::Seed;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantBody {
    token_lifetime_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientBody {
    secret: Option<String>,
    #[serde(default)]
    expired: bool,
    token_lifetime_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultBody {
    suffix: Option<String>,
    tenant: String,
    access: Option<Access>,
    page_size: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    permissions: Vec<Permission>,
    on: Option<Vec<ObjectKind>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LatencyBody {
    milliseconds: u64,
}

pub(super) async fn seed(State(azure): AzureState, body: Bytes) -> AdminResult {
    let seed: Seed = parse(&body)?;
    azure.apply(&seed)?;
    Ok(no_content())
}

pub(super) async fn latency(State(azure): AzureState, body: Bytes) -> AdminResult {
    let body: LatencyBody = parse(&body)?;
    azure.set_base_latency(Duration::from_millis(body.milliseconds));
    Ok(no_content())
}

pub(super) async fn put_tenant(State(azure): AzureState, Path(tenant): Path<String>, body: Bytes) -> AdminResult {
    let body: TenantBody = parse(&body)?;
    let mut state = azure.shared.lock();
    let tenant = state.directory.add_tenant(&tenant);
    tenant.token_lifetime = body.token_lifetime_seconds.map(Duration::from_secs);
    Ok(no_content())
}

pub(super) async fn put_client(
    State(azure): AzureState,
    Path((tenant, client)): Path<(String, String)>,
    body: Bytes,
) -> AdminResult {
    let body: ClientBody = parse(&body)?;
    azure.change(|state| {
        let client = match &body.secret {
            Some(secret) => state.add_client(&tenant, &client, secret)?,
            None => state.add_application(&tenant, &client)?,
        };
        client.expired = body.expired;
        client.token_lifetime = body.token_lifetime_seconds.map(Duration::from_secs);
        Ok(())
    })?;
    Ok(no_content())
}

pub(super) async fn expire_client(
    State(azure): AzureState,
    Path((tenant, client)): Path<(String, String)>,
) -> AdminResult {
    azure.change(|state| {
        state.client(&tenant, &client)?.expired = true;
        Ok(())
    })?;
    Ok(no_content())
}

pub(super) async fn put_vault(State(azure): AzureState, Path(name): Path<String>, body: Bytes) -> AdminResult {
    let body: VaultBody = parse(&body)?;
    let suffix = body.suffix.as_deref().unwrap_or("vault.azure.net");
    azure.shared.add_vault(&name, suffix, &body.tenant)?;
    azure.change_vault(&name, |vault| {
        vault.access = body.access.unwrap_or(vault.access);
        vault.set_page_size(body.page_size.unwrap_or(vault.page_size))
    })?;
    Ok(no_content())
}

pub(super) async fn put_grant(
    State(azure): AzureState,
    Path((vault, client)): Path<(String, String)>,
    body: Bytes,
) -> AdminResult {
    let body: GrantBody = parse(&body)?;
    azure.change_vault(&vault, |vault| {
        for kind in body.on.unwrap_or_else(|| ObjectKind::ALL.to_vec()) {
            vault.revoke_on(&client, kind, &Permission::ALL);
            vault.grant_on(&client, kind, &body.permissions);
        }
        Ok(())
    })?;
    Ok(no_content())
}

pub(super) async fn delete_grant(
    State(azure): AzureState,
    Path((vault, client)): Path<(String, String)>,
) -> AdminResult {
    azure.change_vault(&vault, |vault| {
        vault.revoke(&client, &Permission::ALL);
        Ok(())
    })?;
    Ok(no_content())
}
