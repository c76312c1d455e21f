//! One request from arrival to response: read, record, delay, and respond or inject a fault.
//!
//! Handles HTTP only. The correct response comes from `services`; `fault` selects a fault, and
//! `fault_injection` carries it out.
//!
//! # Guarantees
//!
//! Every request is counted once, on arrival. Its journal entry is closed once, also if the client
//! disconnects before the response.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::entra;
use crate::fault::FaultEffect;
use crate::fault_injection;
use crate::record::Arrival;
use crate::request::endpoint::Endpoint;
use crate::request::parsed::{ParsedRequest, Service};
use crate::response::{Body, BufferedResponse};
use crate::services;
use crate::state::SharedState;

/// No valid request is larger: a secret has at most 25 KB, and JSON escapes a byte as at most six.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Longer than any path or name in Azure.
const MAX_RECORDED_BYTES: usize = 512;

/// Responds to one request; `close` closes its connection.
pub(crate) async fn serve(
    shared: Arc<SharedState>,
    close: Arc<Notify>,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut request = ParsedRequest::read(&head, &shared.clouds, endpoint);
    let too_large = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => {
            request.body = body.to_bytes();
            false
        }
        Err(_) => {
            request.body = Bytes::new();
            true
        }
    };
    let (record, effect) = arrive(&shared, &request);
    // The timer counts whole milliseconds, so even a sleep of zero can take one.
    if !effect.delay.is_zero() {
        tokio::time::sleep(effect.delay).await;
    }
    if too_large {
        let page = "request body too large";
        let response = BufferedResponse::text(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", page);
        return Ok(record.close(response.into_response()));
    }
    let response = match effect.action {
        None => services::respond(&shared, &request).into_response(),
        Some(action) => fault_injection::inject(&shared, &request, action, &close).await,
    };
    Ok(record.close(response))
}

/// Counts and journals a request, and returns the faults that apply to it.
fn arrive(shared: &Arc<SharedState>, request: &ParsedRequest) -> (OpenRecord, FaultEffect) {
    let service = bounded(request.service_name());
    let kind = request.kind();
    let mut state = shared.lock();
    let issued = request.bearer().and_then(|token| state.directory.lookup(token));
    let client_id = match (&request.service, issued) {
        (Service::Entra { .. }, _) => entra::client_of_form(&request.body),
        (Service::Imds { .. }, _) => request.query.get("client_id").cloned(),
        (Service::Vault { .. } | Service::Unknown, issued) => issued.map(|issued| issued.client_id.clone()),
    };
    let arrival = Arrival {
        method: request.method.to_string(),
        host: bounded(request.host.clone()),
        path: bounded(request.path.clone()),
        service: service.clone(),
        kind,
        client_id: client_id.map(bounded),
        authorized: request.authorization.is_some(),
        token_sha256: request.bearer().map(fingerprint),
        user_agent: request.user_agent.clone().map(bounded),
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let sequence = state.recorder.arrive(arrival, now);
    let mut effect = state.faults.apply(&service, kind, request.object());
    effect.delay = effect.delay.saturating_add(state.base_latency);
    let record = OpenRecord { shared: Arc::clone(shared), sequence, service, status: None };
    (record, effect)
}

/// Truncates text from clients, so that a full journal stays small.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_RECORDED_BYTES));
    text
}

/// Enough of a hash to distinguish tokens, too little to be used as one.
fn fingerprint(token: &str) -> String {
    hex::encode(&Sha256::digest(token.as_bytes())[..8])
}

/// Closes a journal entry when it is dropped: also when hyper drops the handler because the client
/// disconnected.
struct OpenRecord {
    shared: Arc<SharedState>,
    sequence: u64,
    service: String,
    status: Option<u16>,
}

impl OpenRecord {
    fn close(mut self, response: Response<Body>) -> Response<Body> {
        self.status = Some(response.status().as_u16());
        response
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.recorder.finish(self.sequence, &self.service, self.status);
    }
}
