//! The routes of the admin API.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::routing::{delete, get, patch, post, put};
use serde_json::json;
use tokio::net::TcpListener;

use super::identities;
use super::objects;
use super::records;
use super::reply::json_response;
use super::setup;
use crate::azure::handle::Azure;

/// Enough for a seed document with a few hundred secrets.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Serves until the runtime shuts down.
pub(crate) async fn run(listener: TcpListener, azure: Azure, ca_pem: String) {
    let service = axum::serve(listener, router(azure, ca_pem));
    // `axum::serve` never returns.
    let _ = service.await;
}

fn router(azure: Azure, ca_pem: String) -> Router {
    let pem = [(header::CONTENT_TYPE, "application/x-pem-file")];
    Router::new()
        .route("/health", get(|| async { json_response(&json!({ "status": "ok" })) }))
        .route("/ca.pem", get(move || async move { (pem, ca_pem) }))
        .route("/seed", post(setup::seed))
        .route("/latency", put(setup::latency))
        .route("/tenants/{tenant}", put(setup::put_tenant))
        .route("/tenants/{tenant}/clients/{client}", put(setup::put_client))
        .route("/tenants/{tenant}/clients/{client}/expire", post(setup::expire_client))
        .route("/tenants/{tenant}/clients/{client}/federated", post(identities::add_federation))
        .route("/tenants/{tenant}/clients/{client}/federated", delete(identities::clear_federations))
        .route("/tenants/{tenant}/clients/{client}/certificates", post(identities::add_certificate))
        .route("/tenants/{tenant}/clients/{client}/certificates", delete(identities::clear_certificates))
        .route("/vaults/{vault}", put(setup::put_vault))
        .route("/vaults/{vault}/grants/{client}", put(setup::put_grant).delete(setup::delete_grant))
        .route("/vaults/{vault}/{collection}", get(objects::names))
        .route("/vaults/{vault}/{collection}/{name}", put(objects::set).delete(objects::delete))
        .route("/vaults/{vault}/{collection}/{name}/versions", get(objects::versions))
        .route("/vaults/{vault}/{collection}/{name}/{version}", patch(objects::change))
        .route("/vaults/{vault}/deletedsecrets/{name}", delete(objects::purge))
        .route("/issuers", put(identities::put_issuer))
        .route("/issuers/token", post(identities::sign))
        .route("/managed-identities/{client}", put(identities::put_managed_identity))
        .route("/managed-identities/{client}", delete(identities::delete_managed_identity))
        .route("/faults", get(records::faults).post(records::add_fault).delete(records::clear_faults))
        .route("/faults/{service}", delete(records::clear_faults_of))
        .route("/counters", get(records::counters).delete(records::reset_counters))
        .route("/counters/{service}", get(records::counters_of).delete(records::reset_counters_of))
        .route("/journal", get(records::journal).delete(records::reset_journal))
        .route("/tokens/{client}/revoke", post(records::revoke_tokens))
        .route("/tokens/{client}/expire", post(records::expire_tokens))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(azure)
}
