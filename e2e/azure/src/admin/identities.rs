//! Admin calls on federated credentials, client certificates, issuers and managed identities.
//!
//! An application that is not there yet is added without a secret.
//! Issuers sign what they are asked to sign; whether it is any good is for Entra ID to say.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Reply, Scene, done, json_reply, parse};
use crate::directory::Federation;
use crate::world::invalid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FederationBody {
    issuer: String,
    subject: String,
    #[serde(default = "exchange_audience")]
    audience: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateBody {
    pem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerBody {
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    issuer: String,
    subject: String,
    #[serde(default = "exchange_audience")]
    audience: String,
    #[serde(default = "an_hour")]
    lifetime_seconds: u64,
    #[serde(default)]
    claims: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityBody {
    tenant: String,
    #[serde(default)]
    system: bool,
}

pub(super) async fn add_federation(
    State(azure): Scene,
    Path((tenant, client)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let FederationBody { issuer, subject, audience } = parse(&body)?;
    let federation = Federation { issuer, subject, audience };
    azure.world(|world| world.add_federation(&tenant, &client, federation))?;
    Ok(done())
}

pub(super) async fn clear_federations(State(azure): Scene, Path((tenant, client)): Path<(String, String)>) -> Reply {
    azure.world(|world| {
        world.client(&tenant, &client)?.federations.clear();
        Ok(())
    })?;
    Ok(done())
}

pub(super) async fn add_certificate(
    State(azure): Scene,
    Path((tenant, client)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let body: CertificateBody = parse(&body)?;
    let der = CertificateDer::from_pem_slice(body.pem.as_bytes());
    let der = der.map_err(|_| invalid("certificate", "", "one CERTIFICATE block of PEM"))?;
    azure.world(|world| world.add_client_certificate(&tenant, &client, &der))?;
    Ok(done())
}

pub(super) async fn clear_certificates(State(azure): Scene, Path((tenant, client)): Path<(String, String)>) -> Reply {
    azure.world(|world| {
        world.client(&tenant, &client)?.certificates.clear();
        Ok(())
    })?;
    Ok(done())
}

pub(super) async fn put_issuer(State(azure): Scene, body: Bytes) -> Reply {
    let body: IssuerBody = parse(&body)?;
    let issuer = azure.world(|world| world.add_issuer(&body.url))?;
    Ok(json_reply(&json!({ "url": issuer.url(), "kid": issuer.kid() })))
}

pub(super) async fn sign(State(azure): Scene, body: Bytes) -> Reply {
    let body: TokenBody = parse(&body)?;
    let issuer = azure.world(|world| world.issuer(&body.issuer).cloned())?;
    let lifetime = Duration::from_secs(body.lifetime_seconds);
    let token = issuer.sign(&body.subject, &body.audience, lifetime, body.claims)?;
    Ok(json_reply(&json!({ "token": token })))
}

pub(super) async fn put_managed_identity(State(azure): Scene, Path(client): Path<String>, body: Bytes) -> Reply {
    let body: IdentityBody = parse(&body)?;
    azure.world(|world| world.add_managed_identity(&body.tenant, &client, body.system))?;
    Ok(done())
}

pub(super) async fn delete_managed_identity(State(azure): Scene, Path(client): Path<String>) -> Reply {
    azure.remove_managed_identity(&client);
    Ok(done())
}

fn exchange_audience() -> String {
    "api://AzureADTokenExchange".to_owned()
}

fn an_hour() -> u64 {
    3600
}
