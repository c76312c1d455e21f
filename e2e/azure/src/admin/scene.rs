//! Admin calls that build the scene: tenants, clients, vaults, grants, latency, seed.
//!
//! Objects are next door in `objects`, identities in `identities`, and what only reads back is in `records`.
//! Bodies are small structs of their own; all checks are in `world`.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::{Reply, Scene, done, parse};
use crate::content::ObjectKind;
use crate::seed::Seed;
use crate::world::{Access, Permission};

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

pub(super) async fn seed(State(azure): Scene, body: Bytes) -> Reply {
    let seed: Seed = parse(&body)?;
    azure.apply(&seed)?;
    Ok(done())
}

pub(super) async fn latency(State(azure): Scene, body: Bytes) -> Reply {
    let body: LatencyBody = parse(&body)?;
    azure.set_base_latency(Duration::from_millis(body.milliseconds));
    Ok(done())
}

pub(super) async fn put_tenant(State(azure): Scene, Path(tenant): Path<String>, body: Bytes) -> Reply {
    let body: TenantBody = parse(&body)?;
    let mut world = azure.shared.world();
    let tenant = world.directory.add_tenant(&tenant);
    tenant.token_lifetime = body.token_lifetime_seconds.map(Duration::from_secs);
    Ok(done())
}

pub(super) async fn put_client(
    State(azure): Scene,
    Path((tenant, client)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let body: ClientBody = parse(&body)?;
    azure.world(|world| {
        let client = match &body.secret {
            Some(secret) => world.add_client(&tenant, &client, secret)?,
            None => world.add_application(&tenant, &client)?,
        };
        client.expired = body.expired;
        client.token_lifetime = body.token_lifetime_seconds.map(Duration::from_secs);
        Ok(())
    })?;
    Ok(done())
}

pub(super) async fn expire_client(State(azure): Scene, Path((tenant, client)): Path<(String, String)>) -> Reply {
    azure.world(|world| {
        world.client(&tenant, &client)?.expired = true;
        Ok(())
    })?;
    Ok(done())
}

pub(super) async fn put_vault(State(azure): Scene, Path(name): Path<String>, body: Bytes) -> Reply {
    let body: VaultBody = parse(&body)?;
    let suffix = body.suffix.as_deref().unwrap_or("vault.azure.net");
    azure.shared.add_vault(&name, suffix, &body.tenant)?;
    azure.vault(&name, |vault| {
        vault.access = body.access.unwrap_or(vault.access);
        vault.set_page_size(body.page_size.unwrap_or(vault.page_size))
    })?;
    Ok(done())
}

pub(super) async fn put_grant(
    State(azure): Scene,
    Path((vault, client)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let body: GrantBody = parse(&body)?;
    azure.vault(&vault, |vault| {
        for kind in body.on.unwrap_or_else(|| ObjectKind::ALL.to_vec()) {
            vault.revoke_on(&client, kind, &Permission::ALL);
            vault.grant_on(&client, kind, &body.permissions);
        }
        Ok(())
    })?;
    Ok(done())
}

pub(super) async fn delete_grant(State(azure): Scene, Path((vault, client)): Path<(String, String)>) -> Reply {
    azure.vault(&vault, |vault| {
        vault.revoke(&client, &Permission::ALL);
        Ok(())
    })?;
    Ok(done())
}
