//! An answer before it becomes an HTTP response.
//!
//! Complete in memory, so that a fault can still change it; only `sabotage` builds streams.
//! `dispatch` turns it into a response at the very end.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

/// What both services send as the type of their JSON.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The body of a response on the wire.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Status, headers and body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// An answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A JSON document.
    pub(crate) fn json(status: StatusCode, document: &Value) -> Answer {
        let mut answer = Answer::empty(status);
        answer.headers.insert(CONTENT_TYPE, JSON);
        answer.body = Bytes::from(document.to_string());
        answer
    }

    /// A text of any type.
    pub(crate) fn text(status: StatusCode, content_type: &str, body: &str) -> Answer {
        Answer { body: Bytes::copy_from_slice(body.as_bytes()), ..Answer::empty(status) }
            .header(CONTENT_TYPE, content_type)
    }

    /// Sets a header. A value that HTTP does not allow is left out: it could not be sent anyhow.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Answer {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The response on the wire.
    pub(crate) fn into_response(self) -> Response<Body> {
        let body = Full::new(self.body.clone()).map_err(|never| match never {});
        self.head_with(body.boxed_unsync())
    }

    /// A response of this status and these headers around another body.
    pub(crate) fn head_with(&self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}
