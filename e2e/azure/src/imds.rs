//! The instance metadata service: tokens for the managed identities of the machine.
//!
//! Plain HTTP on its own socket, with one path. Only a client id can name an identity; object and
//! resource ids are refused, since the product never sends them. Unlike the real service it issues
//! a new token for every request.

use hyper::StatusCode;
use serde_json::json;

use crate::clock::now;
use crate::request::imds::ImdsOperation;
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::state::{EmulatorState, SharedState};

/// The response without a fault.
pub(crate) fn respond(shared: &SharedState, request: &ParsedRequest, operation: ImdsOperation) -> BufferedResponse {
    match operation {
        ImdsOperation::Token => token(shared, request).unwrap_or_else(|error| error),
        ImdsOperation::Unknown => json_error(StatusCode::NOT_FOUND, "not_found", "The requested path does not exist"),
    }
}

/// The error that the service sends with an injected status.
pub(crate) fn error_response(status: StatusCode) -> BufferedResponse {
    let (error, text) = match status.as_u16() {
        404 => ("not_found", "The identity endpoint is being updated"),
        410 => ("gone", "The identity endpoint is being updated"),
        429 => ("too_many_requests", "Too many requests"),
        500..=599 => ("unknown", "Failed to retrieve token from the Active directory"),
        _ => ("invalid_request", "The request is malformed"),
    };
    json_error(status, error, text)
}

fn token(shared: &SharedState, request: &ParsedRequest) -> Result<BufferedResponse, BufferedResponse> {
    let bad = |text: &str| json_error(StatusCode::BAD_REQUEST, "invalid_request", text);
    let query = |name: &str| request.query.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if request.metadata.as_deref().is_none_or(|value| !value.eq_ignore_ascii_case("true")) {
        return Err(bad("Required metadata header not specified"));
    }
    if request.forwarded {
        return Err(bad("The request must not have passed a proxy: X-Forwarded-For is there"));
    }
    let version = query("api-version").ok_or_else(|| bad("Required query variable 'api-version' is missing"))?;
    if version < "2018-02-01" {
        return Err(bad("The api-version is not supported"));
    }
    let resource = query("resource").ok_or_else(|| bad("Required query variable 'resource' is missing"))?;
    if ["object_id", "msi_res_id", "mi_res_id"].iter().any(|name| request.query.contains_key(*name)) {
        return Err(bad("azure-emulator finds identities by client_id only"));
    }
    let mut state = shared.lock();
    let EmulatorState { machine, directory, .. } = &mut *state;
    let (client, tenant) = machine.select(query("client_id")).map_err(bad)?;
    if !shared.clouds.iter().any(|cloud| cloud.knows_resource(resource.trim_end_matches('/'))) {
        let text = format!(
            "AADSTS500011: The resource principal named {resource} was not found in the tenant named {tenant}."
        );
        return Err(json_error(StatusCode::BAD_REQUEST, "invalid_resource", &text));
    }
    let now = now();
    let issued = directory.issue(&tenant, &client, resource, now);
    let (token, lifetime) = issued.ok_or_else(|| bad("Identity not found"))?;
    let document = json!({
        "access_token": token,
        "client_id": client,
        "expires_in": lifetime.to_string(),
        "expires_on": now.saturating_add(lifetime).to_string(),
        "ext_expires_in": lifetime.to_string(),
        "not_before": now.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    Ok(BufferedResponse::json(StatusCode::OK, &document))
}

fn json_error(status: StatusCode, error: &str, text: &str) -> BufferedResponse {
    BufferedResponse::json(status, &json!({ "error": error, "error_description": text }))
}
