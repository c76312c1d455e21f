//! The admin API: the scene, over plain HTTP and JSON, for those who do not write Rust.
//!
//! It has no password, so it listens on loopback only, which `emulator` sees to.
//! Each handler parses, makes one call on [`Azure`] and words the result.

mod identities;
mod objects;
mod records;
mod scene;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpListener;

use crate::azure::Azure;
use crate::world::WorldError;

/// A seed document with a few hundred secrets fits.
const MAX_BODY_BYTES: usize = 8 << 20;

/// What handlers return: an answer, or an error with its reason.
type Reply = Result<Response, Problem>;

/// Why a request to the admin API failed.
#[derive(Debug)]
enum Problem {
    World(WorldError),
    Body(serde_json::Error),
}

/// Serves until the runtime goes away.
pub(crate) async fn run(listener: TcpListener, azure: Azure, ca_pem: String) {
    let service = axum::serve(listener, router(azure, ca_pem));
    // `axum::serve` never ends by itself, and reports accept errors nowhere but here.
    let _ = service.await;
}

fn router(azure: Azure, ca_pem: String) -> Router {
    let pem = [(header::CONTENT_TYPE, "application/x-pem-file")];
    Router::new()
        .route("/health", get(|| async { json_reply(&json!({ "status": "ok" })) }))
        .route("/ca.pem", get(move || async move { (pem, ca_pem) }))
        .route("/seed", post(scene::seed))
        .route("/latency", put(scene::latency))
        .route("/tenants/{tenant}", put(scene::put_tenant))
        .route("/tenants/{tenant}/clients/{client}", put(scene::put_client))
        .route("/tenants/{tenant}/clients/{client}/expire", post(scene::expire_client))
        .route("/tenants/{tenant}/clients/{client}/federated", post(identities::add_federation))
        .route("/tenants/{tenant}/clients/{client}/federated", delete(identities::clear_federations))
        .route("/tenants/{tenant}/clients/{client}/certificates", post(identities::add_certificate))
        .route("/tenants/{tenant}/clients/{client}/certificates", delete(identities::clear_certificates))
        .route("/vaults/{vault}", put(scene::put_vault))
        .route("/vaults/{vault}/grants/{client}", put(scene::put_grant).delete(scene::delete_grant))
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
        .route("/faults/{place}", delete(records::clear_faults_of))
        .route("/counters", get(records::counters).delete(records::reset_counters))
        .route("/counters/{place}", get(records::counters_of).delete(records::reset_counters_of))
        .route("/journal", get(records::journal).delete(records::reset_journal))
        .route("/tokens/{client}/revoke", post(records::revoke_tokens))
        .route("/tokens/{client}/expire", post(records::expire_tokens))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(azure)
}

/// Parses a body whatever its declared type, so that `curl -d` needs no header.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(Problem::Body)
}

fn json_reply(document: &impl Serialize) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match serde_json::to_string(document) {
        Ok(text) => (json, text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

impl From<WorldError> for Problem {
    fn from(error: WorldError) -> Problem {
        Problem::World(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Problem::Body(error) => {
                let text = format!("the body is not what this call takes: {error}");
                (StatusCode::BAD_REQUEST, text)
            }
            Problem::World(error) => {
                let status = match error {
                    WorldError::UnknownTenant(_)
                    | WorldError::UnknownClient { .. }
                    | WorldError::UnknownVault(_)
                    | WorldError::UnknownSecret(_)
                    | WorldError::UnknownIssuer(_) => StatusCode::NOT_FOUND,
                    WorldError::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
                    WorldError::WrongState { .. } => StatusCode::CONFLICT,
                    WorldError::Invalid { .. } => StatusCode::BAD_REQUEST,
                };
                (status, error.to_string())
            }
        };
        (status, json_reply(&json!({ "error": text }))).into_response()
    }
}

/// The handle that every handler works on.
type Scene = State<Azure>;
