//! The instance metadata service: tokens for the managed identities of the machine.
//!
//! Plain HTTP on its own socket, with one path. As the real service it keeps the token of an
//! identity for a resource until it expires, whatever happens to the identity's rights meanwhile.

use hyper::StatusCode;
use serde_json::json;

use crate::clock::now;
use crate::directory::Directory;
use crate::machine::{KeptToken, MachineIdentities, Selector, TokenKey};
use crate::request::imds::ImdsOperation;
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::state::{EmulatorState, SharedState};

/// `not_before` is this many seconds before the time of issue.
const CLOCK_SKEW: i64 = 300;

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
    let mut state = shared.lock();
    let EmulatorState { machine, directory, .. } = &mut *state;
    let by_object = query("object_id").map(|id| directory.client_of_object(id).unwrap_or_default());
    let selector = match (query("client_id"), by_object.as_deref(), query("msi_res_id").or(query("mi_res_id"))) {
        (Some(client), ..) | (None, Some(client), _) => Selector::Client(client),
        (None, None, Some(id)) => Selector::Resource(id),
        (None, None, None) => Selector::Nothing,
    };
    let (client, tenant) = machine.select(selector).map_err(bad)?;
    if !shared.clouds.iter().any(|cloud| cloud.knows_resource(resource.trim_end_matches('/'))) {
        let text = format!(
            "AADSTS500011: The resource principal named {resource} was not found in the tenant named {tenant}."
        );
        return Err(json_error(StatusCode::BAD_REQUEST, "invalid_resource", &text));
    }
    let now = now();
    let key = TokenKey { tenant, client: client.clone(), resource: resource.to_owned() };
    let kept = kept_or_issued(machine, directory, key, now);
    let (KeptToken { token, lifetime }, expires) = kept.ok_or_else(|| bad("Identity not found"))?;
    let document = json!({
        "access_token": token,
        "client_id": client,
        "expires_in": expires.saturating_sub(now).to_string(),
        "expires_on": expires.to_string(),
        "ext_expires_in": lifetime.to_string(),
        "not_before": expires.saturating_sub(lifetime).saturating_sub(CLOCK_SKEW).to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    Ok(BufferedResponse::json(StatusCode::OK, &document))
}

/// The token of an identity and the time at which it expires; a new one if there is none that is
/// valid.
fn kept_or_issued(
    machine: &mut MachineIdentities,
    directory: &mut Directory,
    key: TokenKey,
    now: i64,
) -> Option<(KeptToken, i64)> {
    let kept = machine.kept(&key).and_then(|kept| {
        let expires = directory.lookup(&kept.token)?.expires;
        (expires > now).then(|| (kept.clone(), expires))
    });
    if kept.is_some() {
        return kept;
    }
    let (token, lifetime) = directory.issue(&key.tenant, &key.client, &key.resource, now)?;
    let issued = KeptToken { token, lifetime };
    machine.keep(key, issued.clone());
    Some((issued, now.saturating_add(lifetime)))
}

fn json_error(status: StatusCode, error: &str, text: &str) -> BufferedResponse {
    BufferedResponse::json(status, &json!({ "error": error, "error_description": text }))
}
