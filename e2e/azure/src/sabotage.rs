//! Answers that are wrong on purpose.
//!
//! Decides nothing: `fault` chose the action, and where an action changes the right answer, that
//! answer comes from `dispatch`. An answer is built so that HTTP/1.1 and HTTP/2 clients both see the fault.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use futures::stream::{self, Stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;

use crate::answer::{Answer, Body};
use crate::call::{Call, Place};
use crate::dispatch;
use crate::entra;
use crate::entra::errors::EntraError;
use crate::fault::Action;
use crate::imds;
use crate::keyvault;
use crate::world::Shared;

/// The size of the pieces of a huge body.
const PIECE_BYTES: usize = 64 * 1024;

/// The size of the pieces of a packed body: each unpacks to a thousand times as much, which takes time to pack.
const PACKED_BYTES: usize = 1024;
const PACKED_PAUSE: Duration = Duration::from_millis(2);

/// How a huge body begins.
const START: &[u8] = br#"{"value":""#;

const JSON: &str = "application/json; charset=utf-8";

/// Does what the fault says; it may never return.
pub(crate) async fn respond(shared: &Shared, call: &Call, action: Action, cut: &Notify) -> Response<Body> {
    match action {
        Action::Latency { milliseconds } => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            dispatch::answer(shared, call).into_response()
        }
        Action::Status { status, retry_after } => {
            let answer = answer_of_status(shared, call, valid(status));
            match retry_after {
                Some(value) => answer.header(RETRY_AFTER, &value),
                None => answer,
            }
            .into_response()
        }
        Action::Hang => std::future::pending().await,
        Action::Cut => {
            cut.notify_one();
            std::future::pending().await
        }
        Action::Truncate => truncated(&dispatch::answer(shared, call)),
        Action::ContentType { content_type } => {
            dispatch::answer(shared, call).header(CONTENT_TYPE, &content_type).into_response()
        }
        Action::HugeBody { bytes } => huge(bytes),
        Action::GzipBomb { bytes } => gzip_bomb(bytes),
        Action::HugeHead { bytes } => huge_head(&dispatch::answer(shared, call), bytes),
        Action::NextLink { url } => with_next_link(dispatch::answer(shared, call), &url),
        Action::Redirect { status, url } => Answer::empty(valid(status)).header(LOCATION, &url).into_response(),
        Action::Body { status, content_type, body } => {
            Answer::text(valid(status), &content_type, &body).into_response()
        }
    }
}

/// Statuses are checked when a rule is added; 500 is for one that slipped through.
fn valid(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The error that the service in question would send with this status.
fn answer_of_status(shared: &Shared, call: &Call, status: StatusCode) -> Answer {
    match &call.place {
        Place::Entra { .. } => entra::decorate(EntraError::for_status(status).answer(call), call),
        Place::Imds { .. } => imds::answer_of_status(status),
        Place::Vault { name, suffix, operation } => {
            let tenant = shared.world().vaults.get(name).map(|vault| vault.tenant.clone());
            keyvault::answer_of_status(shared, suffix, tenant.as_deref(), operation.on, status)
        }
        Place::Nowhere => Answer::text(status, "text/plain", "azure-emulator: fault"),
    }
}

/// The whole length in the head, half of it in the body, and then the end of the stream.
///
/// It ends without an error, since an HTTP/2 reset may overtake the head that was sent before it.
fn truncated(answer: &Answer) -> Response<Body> {
    let half = answer.body.slice(..answer.body.len() / 2);
    let pieces = stream::unfold(Some(half), |half| async {
        if half.is_none() {
            // One turn of the loop lets HTTP/1.1 write what it has before it notices the shortage.
            tokio::task::yield_now().await;
        }
        half.map(|half| (Ok(half), None))
    });
    let mut response = answer.head_with(streamed(pieces));
    let length = HeaderValue::from(answer.body.len());
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

/// A JSON string that never closes, as long as asked for.
fn huge(bytes: u64) -> Response<Body> {
    let filler = Bytes::from(vec![b'a'; PIECE_BYTES]);
    let start = Bytes::from_static(START);
    let pieces = stream::unfold((bytes, Some(start)), move |(left, start)| {
        let piece = start.unwrap_or_else(|| filler.clone());
        async move {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let rest = left.saturating_sub(u64::try_from(length).unwrap_or(left));
            (length > 0).then(|| (Ok(piece.slice(..length)), (rest, None)))
        }
    });
    Answer::text(StatusCode::OK, JSON, "").head_with(streamed(pieces))
}

/// The same packed by gzip, piece by piece as it is read.
fn gzip_bomb(bytes: u64) -> Response<Body> {
    let packed = GzEncoder::new(filler(bytes), Compression::best());
    let pieces = stream::unfold(packed, |mut packed| async {
        // Others are served between two pieces, and a client that has gone is noticed.
        tokio::time::sleep(PACKED_PAUSE).await;
        let mut piece = vec![0; PACKED_BYTES];
        match packed.read(&mut piece) {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), packed))
            }
            Err(error) => Some((Err(error), packed)),
        }
    });
    let mut response = Answer::text(StatusCode::OK, JSON, "").head_with(streamed(pieces));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// The JSON string that never closes, to be read.
fn filler(bytes: u64) -> impl Read + Send + 'static {
    START.chain(io::repeat(b'a')).take(bytes)
}

/// The right answer behind fields of eight kilobytes each.
fn huge_head(answer: &Answer, bytes: u64) -> Response<Body> {
    const FIELD: usize = 8 << 10;
    let mut response = answer.clone().into_response();
    let value = HeaderValue::from_maybe_shared(Bytes::from(vec![b'a'; FIELD]));
    let value = value.unwrap_or_else(|_| HeaderValue::from_static("a"));
    for _ in 0..usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(FIELD) {
        response.headers_mut().append("x-filler", value.clone());
    }
    response
}

fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    let frames = futures::StreamExt::map(pieces, |piece| piece.map(Frame::data));
    StreamBody::new(frames).boxed_unsync()
}

/// Puts a foreign address into a list page.
fn with_next_link(mut answer: Answer, url: &str) -> Response<Body> {
    if let Ok(mut document) = serde_json::from_slice::<Value>(&answer.body)
        && let Some(link) = document.get_mut("nextLink")
    {
        *link = Value::from(url);
        answer.body = Bytes::from(document.to_string());
    }
    answer.into_response()
}
