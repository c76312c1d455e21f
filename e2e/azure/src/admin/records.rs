//! Admin calls on faults, counters, journal and tokens.
//!
//! They read and reset the records of requests, which have no token and no value.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::reply::{AdminResult, AzureState, json_response, no_content, parse};
use crate::fault::Fault;

pub(super) async fn faults(State(azure): AzureState) -> Response {
    json_response(&azure.shared.lock().faults.list())
}

pub(super) async fn add_fault(State(azure): AzureState, body: Bytes) -> AdminResult {
    let fault: Fault = parse(&body)?;
    azure.change(|state| state.add_fault(fault))?;
    Ok(no_content())
}

pub(super) async fn clear_faults(State(azure): AzureState) -> Response {
    azure.clear_all_faults();
    no_content()
}

pub(super) async fn clear_faults_of(State(azure): AzureState, Path(service): Path<String>) -> Response {
    azure.clear_faults(&service);
    no_content()
}

pub(super) async fn counters(State(azure): AzureState) -> Response {
    json_response(&azure.shared.lock().recorder.all_counters())
}

pub(super) async fn reset_counters(State(azure): AzureState) -> Response {
    azure.shared.lock().recorder.reset_counters(None);
    no_content()
}

pub(super) async fn counters_of(State(azure): AzureState, Path(service): Path<String>) -> Response {
    json_response(&json!({
        "counters": azure.counters(&service),
        "max_in_flight": azure.max_in_flight(&service),
    }))
}

pub(super) async fn reset_counters_of(State(azure): AzureState, Path(service): Path<String>) -> Response {
    azure.reset_counters(&service);
    no_content()
}

pub(super) async fn journal(State(azure): AzureState) -> Response {
    json_response(&azure.journal())
}

pub(super) async fn reset_journal(State(azure): AzureState) -> Response {
    azure.reset_journal();
    no_content()
}

pub(super) async fn revoke_tokens(State(azure): AzureState, Path(client): Path<String>) -> Response {
    json_response(&json!({ "tokens": azure.revoke_tokens(&client) }))
}

pub(super) async fn expire_tokens(State(azure): AzureState, Path(client): Path<String>) -> Response {
    json_response(&json!({ "tokens": azure.expire_tokens(&client) }))
}
