//! The control API, which changes the provider's responses, by GET like that of upstream's mock.
//!
//! `/rotation?rotated=true` and `/validate-token-requests?audience=a,b` are the contract's;
//! `/secret?name=&value=&version=`, `/answer?answer=` (a fault; empty for none), `/requests` and
//! `/versions` are ours.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::Uri;
use axum::routing::get;

use super::contract::State;

type SharedState = Shared<Arc<Mutex<State>>>;

pub(super) fn router(state: Arc<Mutex<State>>) -> Router {
    Router::new()
        .route("/rotation", get(rotation))
        .route("/validate-token-requests", get(audiences))
        .route("/secret", get(secret))
        .route("/answer", get(fault))
        .route("/requests", get(requests))
        .route("/versions", get(versions))
        .with_state(state)
}

fn change<T>(state: &Mutex<State>, change: impl FnOnce(&mut State) -> T) -> T {
    change(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

async fn rotation(Shared(state): SharedState, uri: Uri) {
    let rotated = query(&uri).get("rotated").is_some_and(|value| value == "true");
    change(&state, |state| state.rotated = rotated);
}

async fn audiences(Shared(state): SharedState, uri: Uri) {
    let audiences = query(&uri).remove("audience").unwrap_or_default();
    let audiences = audiences.split(',').filter(|audience| !audience.is_empty()).map(str::to_owned).collect();
    change(&state, |state| state.audiences = audiences);
}

async fn secret(Shared(state): SharedState, uri: Uri) {
    let mut query = query(&uri);
    let mut take = |key: &str| query.remove(key).unwrap_or_default();
    let (name, value, version) = (take("name"), take("value"), take("version"));
    change(&state, |state| state.values.insert(name, (value, version)));
}

async fn fault(Shared(state): SharedState, uri: Uri) {
    let fault = query(&uri).remove("answer").filter(|fault| !fault.is_empty());
    change(&state, |state| state.fault = fault);
}

async fn requests(Shared(state): SharedState) -> String {
    change(&state, |state| serde_json::Value::from(state.requests.clone()).to_string())
}

async fn versions(Shared(state): SharedState) -> String {
    change(&state, |state| state.versions.to_string())
}
