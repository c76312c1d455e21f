//! One request from arrival to answer: read, record, wait, strike or answer.
//!
//! Knows no protocol beyond HTTP; what is right is said by `entra`, `imds` and `keyvault`,
//! what goes wrong on purpose by `fault`, and how it goes wrong by `sabotage`.
//!
//! # Guarantees
//!
//! Every request is counted once, on arrival, and its journal entry is closed once, also when the
//! client goes away in the middle.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::answer::{Answer, Body};
use crate::call::{Call, Door, Place};
use crate::fault::Strike;
use crate::record::Arrival;
use crate::world::Shared;
use crate::{entra, imds, keyvault, proxy, sabotage};

/// No honest request is larger: a secret has 25 KB at most, JSON may escape each byte six-fold.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Longer than any path or name that Azure knows.
const MAX_RECORDED_BYTES: usize = 512;

/// Answers one request; `cut` closes the connection it came on.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    cut: Arc<Notify>,
    door: Door,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut call = Call::read(&head, &shared.clouds, door);
    let too_large = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => {
            call.body = body.to_bytes();
            false
        }
        Err(_) => {
            call.body = Bytes::new();
            true
        }
    };
    let (record, strike) = arrive(&shared, &call);
    // The timer counts whole milliseconds, and even a sleep of none can cost one.
    if !strike.delay.is_zero() {
        tokio::time::sleep(strike.delay).await;
    }
    if too_large {
        let page = "request body too large";
        let answer = Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", page);
        return Ok(record.close(answer.into_response()));
    }
    let response = match strike.action {
        None => answer(&shared, &call).into_response(),
        Some(action) => sabotage::respond(&shared, &call, action, &cut).await,
    };
    Ok(record.close(response))
}

/// The right answer.
pub(crate) fn answer(shared: &Shared, call: &Call) -> Answer {
    match &call.place {
        Place::Entra { tenant, request } => entra::answer(shared, call, tenant, *request),
        Place::Vault { name, suffix, operation } => keyvault::answer(shared, call, (name, suffix), operation),
        Place::Imds { request } => imds::answer(shared, call, *request),
        Place::Nowhere if call.door == Door::ApiServer => proxy::api_server_answer(),
        Place::Nowhere => keyvault::no_such_host(),
    }
}

/// Counts and journals a request, and asks what is in store for it.
fn arrive(shared: &Arc<Shared>, call: &Call) -> (OpenRecord, Strike) {
    let place = bounded(call.place_name());
    let kind = call.kind();
    let mut world = shared.world();
    let grant = call.bearer().and_then(|token| world.directory.grant(token));
    let client_id = match (&call.place, grant) {
        (Place::Entra { .. }, _) => entra::client_of_form(&call.body),
        (Place::Imds { .. }, _) => call.query.get("client_id").cloned(),
        (Place::Vault { .. } | Place::Nowhere, grant) => grant.map(|grant| grant.client_id.clone()),
    };
    let arrival = Arrival {
        method: call.method.to_string(),
        host: bounded(call.host.clone()),
        path: bounded(call.path.clone()),
        place: place.clone(),
        kind,
        client_id: client_id.map(bounded),
        authorized: call.authorization.is_some(),
        token_sha256: call.bearer().map(fingerprint),
        user_agent: call.user_agent.clone().map(bounded),
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let sequence = world.recorder.arrive(arrival, now);
    let mut strike = world.faults.strike(&place, kind, call.object());
    strike.delay = strike.delay.saturating_add(world.base_latency);
    let record = OpenRecord { shared: Arc::clone(shared), sequence, place, status: None };
    (record, strike)
}

/// Cuts what a client made up, so that a full journal stays small.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_RECORDED_BYTES));
    text
}

/// Enough of a hash to tell tokens apart, too little to be one.
fn fingerprint(token: &str) -> String {
    hex::encode(&Sha256::digest(token.as_bytes())[..8])
}

/// A journal entry that is closed when this is dropped, which a client that goes away brings about.
struct OpenRecord {
    shared: Arc<Shared>,
    sequence: u64,
    place: String,
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
        let mut world = self.shared.world();
        world.recorder.finish(self.sequence, &self.place, self.status);
    }
}
