//! HTTP clients for the Azure SDK, each confined to one host and one kind of path.
//!
//! The SDK checks no names, follows links to any host and hides causes. Here each request is
//! checked against the address to which it is confined before a token is added, and each refusal
//! becomes our own [`Error`]. Never retries.
//!
//! # Guarantees
//! The token of a vault is sent to `https://<vault>:443/<collection>/…` and nowhere else; the SDK
//! never has it. A client secret or an assertion is sent to the authority's token endpoint and
//! nowhere else.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Method, Request, StatusCode};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use url::Url;

use super::endpoint::{Endpoint, Service};
use super::error::Error;
use super::http::{Http, MAX_OBJECT_RESPONSE, MAX_SMALL_RESPONSE, find};
use super::names::{ObjectName, ObjectVersionId};
use super::object_type::ObjectType;
use super::token_proxy::TokenProxy;
use super::tokens::Token;
use super::vault_queue::VaultQueue;
use crate::model::ExposeSecret as _;

/// For one vault and objects of one type.
pub(super) struct VaultTransport {
    pub(super) http: Http,
    pub(super) queue: VaultQueue,
    pub(super) host: String,
    pub(super) object_type: ObjectType,
    pub(super) token: Arc<Token>,
    /// For error texts.
    pub(super) client_id: Option<String>,
    pub(super) deadline: Instant,
}

/// For the token endpoint of one tenant.
pub(super) struct EntraTransport {
    pub(super) http: Http,
    pub(super) authority: String,
    /// The path that the SDK asks for.
    pub(super) path: String,
    pub(super) token_endpoint: TokenEndpoint,
    /// For error texts.
    pub(super) client_id: Option<String>,
}

/// Where a token request is sent; the SDK supports only the first.
#[derive(Debug, Clone)]
pub(super) enum TokenEndpoint {
    /// The authority, as the SDK asks.
    EntraId,
    /// The authority's AD FS, which has another path (docs/reference/azure-provider.md#entra-id).
    Adfs,
    /// The token proxy of a cluster, with the authority's name in the Host header
    /// (docs/reference/azure-provider.md#identity-binding).
    TokenProxy(TokenProxy),
}

/// The path of the token endpoint of AD FS.
pub(super) const ADFS_PATH: &str = "/adfs/oauth2/token";

#[async_trait]
impl HttpClient for VaultTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.send(request).await.map_err(to_sdk)
    }
}

#[async_trait]
impl HttpClient for EntraTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.send(request).await.map_err(to_sdk)
    }
}

impl VaultTransport {
    async fn send(&self, request: &Request) -> Result<AsyncRawResponse, Error> {
        let url = request.url();
        if request.method() != Method::Get || !is_on(url, &self.host) || !is_object_path(url, self.object_type) {
            return Err(Error::OutOfBounds { expected: format!("{}/{}", self.host, self.object_type.collection()) });
        }
        let body = self.exchange(outgoing(request, reqwest::Method::GET)?).await?;
        // The SDK reads no header of the response to a getter.
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
    }

    /// Gets the JSON at `url`: an object, a version, or a list of versions.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for another URL, and those of the request.
    pub(super) async fn get(&self, url: Url) -> Result<Bytes, Error> {
        if !is_on(&url, &self.host) || !(is_object_path(&url, self.object_type) || is_list_path(&url, self.object_type))
        {
            return Err(Error::OutOfBounds { expected: format!("{}/{}", self.host, self.object_type.collection()) });
        }
        self.exchange(reqwest::Request::new(reqwest::Method::GET, url)).await
    }

    async fn exchange(&self, mut outgoing: reqwest::Request) -> Result<Bytes, Error> {
        let endpoint =
            Endpoint { service: Service::KeyVault, host: &self.host, operation: self.object_type.collection() };
        let mut bearer = HeaderValue::from_str(self.token.bearer.expose_secret())
            .map_err(|_| Error::unexpected(endpoint, "the token is not a header value"))?;
        bearer.set_sensitive(true);
        outgoing.headers_mut().insert(AUTHORIZATION, bearer);
        self.queue.acquire(self.deadline).await?;
        let response = self.http.exchange(endpoint, outgoing, MAX_OBJECT_RESPONSE).await;
        let result = response.and_then(|response| response.accept(endpoint, self.client_id.clone()));
        self.queue.record(&result);
        result
    }
}

impl EntraTransport {
    async fn send(&self, request: &Request) -> Result<AsyncRawResponse, Error> {
        let url = request.url();
        if request.method() != Method::Post || !is_on(url, &self.authority) || url.path() != self.path {
            return Err(Error::OutOfBounds { expected: format!("{}{}", self.authority, self.path) });
        }
        let mut outgoing = outgoing(request, reqwest::Method::POST)?;
        let mut endpoint = Endpoint { service: Service::EntraId, host: &self.authority, operation: "token" };
        let response = match &self.token_endpoint {
            TokenEndpoint::EntraId => self.http.exchange(endpoint, outgoing, MAX_SMALL_RESPONSE).await?,
            TokenEndpoint::Adfs => {
                outgoing.url_mut().set_path(ADFS_PATH);
                self.http.exchange(endpoint, outgoing, MAX_SMALL_RESPONSE).await?
            }
            TokenEndpoint::TokenProxy(proxy) => {
                endpoint = Endpoint { service: Service::TokenProxy, host: proxy.host(), ..endpoint };
                let route = proxy.route().await?;
                let path = format!("{}{}", route.url.path().trim_end_matches('/'), url.path());
                *outgoing.url_mut() = route.url;
                outgoing.url_mut().set_path(&path);
                outgoing.url_mut().set_query(url.query());
                let host = HeaderValue::from_str(&self.authority)
                    .map_err(|_| Error::unexpected(endpoint, "its name is not a host name"))?;
                outgoing.headers_mut().insert(HOST, host);
                route.http.exchange(endpoint, outgoing, MAX_SMALL_RESPONSE).await?
            }
        };
        let body = with_numbers(response.accept(endpoint, self.client_id.clone())?);
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
    }
}

/// The response with numbers for the lifetimes that are texts.
///
/// Entra ID's older endpoint and gateways write texts. MSAL, which upstream uses, reads both, the
/// Azure SDK for Rust numbers only (docs/reference/azure-provider.md#entra-id).
fn with_numbers(body: Bytes) -> Bytes {
    const LIFETIMES: [&str; 2] = ["expires_in", "ext_expires_in"];
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u32>().ok());
    let Ok(lifetimes) = serde_json::from_slice::<Lifetimes>(&body) else {
        return body;
    };
    if ![&lifetimes.expires_in, &lifetimes.ext_expires_in].into_iter().flatten().any(|one| number(one).is_some()) {
        return body;
    }
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&body) else {
        return body;
    };
    for name in LIFETIMES {
        if let Some(number) = fields.get(name).and_then(number) {
            fields.insert(name.to_owned(), number.into());
        }
    }
    serde_json::to_vec(&fields).map_or(body, Bytes::from)
}

/// The fields of a token response that may be texts; the token is not read.
#[derive(Deserialize)]
struct Lifetimes {
    expires_in: Option<Value>,
    ext_expires_in: Option<Value>,
}

/// Without the token.
impl fmt::Debug for VaultTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultTransport").field("host", &self.host).finish_non_exhaustive()
    }
}

impl fmt::Debug for EntraTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraTransport").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Whether `url` is on `host`, by https, on port 443, and without a user.
fn is_on(url: &Url, host: &str) -> bool {
    url.scheme() == "https"
        && url.host_str() == Some(host)
        && url.port_or_known_default() == Some(443)
        && url.username().is_empty()
        && url.password().is_none()
}

/// Whether the path is `/<collection>/<name>/[<version>]`. The URL parser has resolved each `..`.
fn is_object_path(url: &Url, object_type: ObjectType) -> bool {
    let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let [collection, name, version] = segments[..] else {
        return false;
    };
    collection == object_type.collection()
        && ObjectName::new(name).is_ok()
        && (version.is_empty() || ObjectVersionId::new(version).is_ok())
}

/// Whether the path is `/<collection>/<name>/versions`.
fn is_list_path(url: &Url, object_type: ObjectType) -> bool {
    let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let [collection, name, "versions"] = segments[..] else {
        return false;
    };
    collection == object_type.collection() && ObjectName::new(name).is_ok()
}

/// The SDK's request as one of our HTTP client, without Authorization and User-Agent.
fn outgoing(request: &Request, method: reqwest::Method) -> Result<reqwest::Request, Error> {
    let unusable = || Error::Sdk {
        host: request.url().host_str().unwrap_or_default().to_owned(),
        kind: "a request that cannot be sent",
    };
    let mut outgoing = reqwest::Request::new(method, request.url().clone());
    for (name, value) in request.headers().iter() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| unusable())?;
        if name == AUTHORIZATION || name == USER_AGENT {
            continue;
        }
        let value = HeaderValue::from_str(value.as_str()).map_err(|_| unusable())?;
        outgoing.headers_mut().insert(name, value);
    }
    match request.body() {
        Body::Bytes(bytes) if bytes.is_empty() => {}
        Body::Bytes(bytes) => *outgoing.body_mut() = Some(bytes.clone().into()),
        // The SDK's credentials and getters send no stream.
        Body::SeekableStream(_) => return Err(unusable()),
    }
    Ok(outgoing)
}

/// Wraps our error for the SDK.
pub(super) fn to_sdk(error: Error) -> azure_core::Error {
    azure_core::Error::new(ErrorKind::Other, error)
}

/// Unwraps our error, which may be three levels deep in the SDK's.
///
/// An error of the SDK's own is most often a body that it could not parse, and its text may quote
/// that body.
pub(super) fn from_sdk(error: &azure_core::Error, endpoint: Endpoint<'_>) -> Error {
    if let Some(ours) = find::<Error>(error) {
        return ours.clone();
    }
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        if kind == Some(&ErrorKind::DataConversion) {
            return Error::unexpected(endpoint, "the answer has another format");
        }
        next = error.source();
    }
    let kind = match error.kind() {
        ErrorKind::HttpResponse { .. } => "HTTP response",
        ErrorKind::Connection => "connection",
        ErrorKind::Io => "input and output",
        ErrorKind::DataConversion => "data conversion",
        ErrorKind::Credential => "credential",
        ErrorKind::Other => "other",
    };
    Error::Sdk { host: endpoint.host.to_owned(), kind }
}
