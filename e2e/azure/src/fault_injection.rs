//! Fault injection: responses that are wrong on purpose.
//!
//! `fault` selects the action; where an action changes the correct response, that response comes
//! from `services`. Each fault is built so that HTTP/1.1 and HTTP/2 clients both see it.

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

use crate::fault::Action;
use crate::request::parsed::ParsedRequest;
use crate::response::{Body, BufferedResponse};
use crate::services;
use crate::state::SharedState;

/// The size of the pieces of a huge body.
const PIECE_BYTES: usize = 64 * 1024;

/// The size of the pieces of a compressed body. Each decompresses to a thousand times as much,
/// which takes time to compress.
const COMPRESSED_BYTES: usize = 1024;
const COMPRESSED_PAUSE: Duration = Duration::from_millis(2);

/// The beginning of a huge body.
const START: &[u8] = br#"{"value":""#;

const JSON: &str = "application/json; charset=utf-8";

/// Responds with the fault; it may never return.
pub(crate) async fn inject(
    shared: &SharedState,
    request: &ParsedRequest,
    action: Action,
    close: &Notify,
) -> Response<Body> {
    match action {
        Action::Latency { milliseconds } => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            services::respond(shared, request).into_response()
        }
        Action::Status { status, retry_after } => {
            let response = services::error_response(shared, request, valid(status));
            match retry_after {
                Some(value) => response.header(RETRY_AFTER, &value),
                None => response,
            }
            .into_response()
        }
        Action::Hang => std::future::pending().await,
        Action::Cut => {
            close.notify_one();
            std::future::pending().await
        }
        Action::Truncate => truncated(&services::respond(shared, request)),
        Action::ContentType { content_type } => {
            services::respond(shared, request).header(CONTENT_TYPE, &content_type).into_response()
        }
        Action::HugeBody { bytes } => huge(bytes),
        Action::GzipBomb { bytes } => gzip_bomb(bytes),
        Action::HugeHead { bytes } => huge_head(&services::respond(shared, request), bytes),
        Action::NextLink { url } => with_next_link(services::respond(shared, request), &url),
        Action::Redirect { status, url } => {
            BufferedResponse::empty(valid(status)).header(LOCATION, &url).into_response()
        }
        Action::Body { status, content_type, body } => {
            BufferedResponse::text(valid(status), &content_type, &body).into_response()
        }
    }
}

/// Rules are checked when they are added, so the fallback is never sent.
fn valid(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The full length in the head, half of it in the body, and then the end of the stream.
///
/// The stream ends without an error: an HTTP/2 reset may overtake the head that was sent before it.
fn truncated(response: &BufferedResponse) -> Response<Body> {
    let length = HeaderValue::from(response.body.len());
    let half = response.body.slice(..response.body.len() / 2);
    let pieces = stream::unfold(Some(half), |half| async {
        if half.is_none() {
            // HTTP/1.1 must get to write the first half before it notices that the rest is missing.
            tokio::task::yield_now().await;
        }
        half.map(|half| (Ok(half), None))
    });
    let mut response = response.head_with(streamed(pieces));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

/// An unterminated JSON string of this length.
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
    BufferedResponse::text(StatusCode::OK, JSON, "").head_with(streamed(pieces))
}

/// The same, compressed by gzip piece by piece as the client reads.
fn gzip_bomb(bytes: u64) -> Response<Body> {
    let compressed = GzEncoder::new(filler(bytes), Compression::best());
    let pieces = stream::unfold(compressed, |mut compressed| async {
        // Lets other requests proceed between two pieces, and notices a client that disconnected.
        tokio::time::sleep(COMPRESSED_PAUSE).await;
        let mut piece = vec![0; COMPRESSED_BYTES];
        match compressed.read(&mut piece) {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), compressed))
            }
            Err(error) => Some((Err(error), compressed)),
        }
    });
    let mut response = BufferedResponse::text(StatusCode::OK, JSON, "").head_with(streamed(pieces));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// The unterminated JSON string as a reader.
fn filler(bytes: u64) -> impl Read + Send + 'static {
    START.chain(io::repeat(b'a')).take(bytes)
}

/// The correct response after header fields of eight kilobytes each.
fn huge_head(response: &BufferedResponse, bytes: u64) -> Response<Body> {
    const FIELD: usize = 8 << 10;
    let mut response = response.clone().into_response();
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

/// Replaces the `nextLink` of a list page.
fn with_next_link(mut response: BufferedResponse, url: &str) -> Response<Body> {
    if let Ok(mut document) = serde_json::from_slice::<Value>(&response.body)
        && let Some(link) = document.get_mut("nextLink")
    {
        *link = Value::from(url);
        response.body = Bytes::from(document.to_string());
    }
    response.into_response()
}
