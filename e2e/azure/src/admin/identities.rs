//! Admin calls on federated credentials, client certificates, issuers and managed identities.
//!
//! An unknown application is added, without a secret. Issuers sign any claims.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{AdminResult, AzureState, json_response, no_content, parse};
use crate::directory::Federation;
use crate::error::invalid;
use crate::machine::resource_id;

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
    State(azure): AzureState,
    Path((tenant, client)): Path<(String, String)>,
    body: Bytes,
) -> AdminResult {
    let FederationBody { issuer, subject, audience } = parse(&body)?;
    let federation = Federation { issuer, subject, audience };
    azure.change(|state| state.add_federation(&tenant, &client, federation))?;
    Ok(no_content())
}

pub(super) async fn clear_federations(
    State(azure): AzureState,
    Path((tenant, client)): Path<(String, String)>,
) -> AdminResult {
    azure.change(|state| {
        state.client(&tenant, &client)?.federations.clear();
        Ok(())
    })?;
    Ok(no_content())
}

pub(super) async fn add_certificate(
    State(azure): AzureState,
    Path((tenant, client)): Path<(String, String)>,
    body: Bytes,
) -> AdminResult {
    let body: CertificateBody = parse(&body)?;
    let der = CertificateDer::from_pem_slice(body.pem.as_bytes());
    let der = der.map_err(|_| invalid("certificate", "", "one CERTIFICATE block of PEM"))?;
    azure.change(|state| state.add_client_certificate(&tenant, &client, &der))?;
    Ok(no_content())
}

pub(super) async fn clear_certificates(
    State(azure): AzureState,
    Path((tenant, client)): Path<(String, String)>,
) -> AdminResult {
    azure.change(|state| {
        state.client(&tenant, &client)?.certificates.clear();
        Ok(())
    })?;
    Ok(no_content())
}

pub(super) async fn put_issuer(State(azure): AzureState, body: Bytes) -> AdminResult {
    let body: IssuerBody = parse(&body)?;
    let issuer = azure.change(|state| state.add_issuer(&body.url))?;
    Ok(json_response(&json!({ "url": issuer.url(), "kid": issuer.kid() })))
}

pub(super) async fn sign(State(azure): AzureState, body: Bytes) -> AdminResult {
    let body: TokenBody = parse(&body)?;
    let issuer = azure.change(|state| state.issuer(&body.issuer).cloned())?;
    let lifetime = Duration::from_secs(body.lifetime_seconds);
    let token = issuer.sign(&body.subject, &body.audience, lifetime, body.claims)?;
    Ok(json_response(&json!({ "token": token })))
}

pub(super) async fn put_managed_identity(
    State(azure): AzureState,
    Path(client): Path<String>,
    body: Bytes,
) -> AdminResult {
    let body: IdentityBody = parse(&body)?;
    let object_id = azure.change(|state| {
        state.add_managed_identity(&body.tenant, &client, body.system)?;
        state.client(&body.tenant, &client).map(|client| client.object_id.clone())
    })?;
    let mut ids = json!({ "object_id": object_id });
    if !body.system {
        ids["resource_id"] = resource_id(&client).into();
    }
    Ok(json_response(&ids))
}

pub(super) async fn delete_managed_identity(State(azure): AzureState, Path(client): Path<String>) -> AdminResult {
    azure.remove_managed_identity(&client);
    Ok(no_content())
}

fn exchange_audience() -> String {
    "api://AzureADTokenExchange".to_owned()
}

fn an_hour() -> u64 {
    3600
}
