//! A response that is complete in memory, so that a fault can still change it.
//!
//! Only `fault_injection` builds responses with streaming bodies.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

/// The content type that Entra ID and Key Vault send with JSON.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

#[derive(Debug, Clone)]
pub(crate) struct BufferedResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl BufferedResponse {
    pub(crate) fn empty(status: StatusCode) -> BufferedResponse {
        BufferedResponse { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn json(status: StatusCode, document: &Value) -> BufferedResponse {
        let mut response = BufferedResponse::empty(status);
        response.headers.insert(CONTENT_TYPE, JSON);
        response.body = Bytes::from(document.to_string());
        response
    }

    /// A JSON document with status 200.
    pub(crate) fn ok(document: &Value) -> BufferedResponse {
        BufferedResponse::json(StatusCode::OK, document)
    }

    pub(crate) fn text(status: StatusCode, content_type: &str, body: &str) -> BufferedResponse {
        BufferedResponse { body: Bytes::copy_from_slice(body.as_bytes()), ..BufferedResponse::empty(status) }
            .header(CONTENT_TYPE, content_type)
    }

    /// Sets a header. A value that HTTP does not allow is dropped.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> BufferedResponse {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let body = Full::new(self.body.clone()).map_err(|never| match never {});
        self.head_with(body.boxed_unsync())
    }

    /// A response with this status and these headers, and another body.
    pub(crate) fn head_with(&self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}
