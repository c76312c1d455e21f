//! Admin calls on faults, counters, journal and tokens.
//!
//! They read and reset what `dispatch` records, and never show a token or a value.
//! Places are vault names and tenants, as in the library.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use super::{Reply, Scene, done, json_reply, parse};
use crate::fault::Fault;

pub(super) async fn faults(State(azure): Scene) -> Response {
    json_reply(&azure.shared.world().faults.list())
}

pub(super) async fn add_fault(State(azure): Scene, body: Bytes) -> Reply {
    let fault: Fault = parse(&body)?;
    azure.world(|world| world.add_fault(fault))?;
    Ok(done())
}

pub(super) async fn clear_faults(State(azure): Scene) -> Response {
    azure.clear_all_faults();
    done()
}

pub(super) async fn clear_faults_of(State(azure): Scene, Path(place): Path<String>) -> Response {
    azure.clear_faults(&place);
    done()
}

pub(super) async fn counters(State(azure): Scene) -> Response {
    json_reply(&azure.shared.world().recorder.all_counters())
}

pub(super) async fn reset_counters(State(azure): Scene) -> Response {
    azure.shared.world().recorder.reset_counters(None);
    done()
}

pub(super) async fn counters_of(State(azure): Scene, Path(place): Path<String>) -> Response {
    json_reply(&json!({
        "counters": azure.counters(&place),
        "max_in_flight": azure.max_in_flight(&place),
    }))
}

pub(super) async fn reset_counters_of(State(azure): Scene, Path(place): Path<String>) -> Response {
    azure.reset_counters(&place);
    done()
}

pub(super) async fn journal(State(azure): Scene) -> Response {
    json_reply(&azure.journal())
}

pub(super) async fn reset_journal(State(azure): Scene) -> Response {
    azure.reset_journal();
    done()
}

pub(super) async fn revoke_tokens(State(azure): Scene, Path(client): Path<String>) -> Response {
    json_reply(&json!({ "tokens": azure.revoke_tokens(&client) }))
}

pub(super) async fn expire_tokens(State(azure): Scene, Path(client): Path<String>) -> Response {
    json_reply(&json!({ "tokens": azure.expire_tokens(&client) }))
}
