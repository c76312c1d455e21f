//! What stands between the Azure SDK and the network: HTTP clients for it, each confined to one host and one kind of path.
//!
//! The SDK checks no names, follows links to any host and hides causes. Here every request is held against the place it belongs to
//! before a token is put on it, and every answer but a good one becomes our own [`Error`]. Nothing here tries again.
//!
//! # Guarantees
//! The token of a vault goes to `https://<vault>:443/<collection>/…` and nowhere else; the SDK never sees it. A client secret or an
//! assertion goes to the authority's token endpoint and nowhere else.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Method, Request, StatusCode};
use azure_core::time::OffsetDateTime;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT};
use tokio::time::Instant;
use url::Url;

use super::answer::{self, Codes};
use super::binding::TokenProxy;
use super::budget::Lane;
use super::challenge::ObjectType;
use super::error::{Error, Refusal, Service};
use super::http::{Http, Place, Reply, find, limits};
use super::names::{ObjectName, ObjectVersionId};
use super::tokens::Token;
use crate::model::ExposeSecret as _;

/// The SDK's way to one vault, for objects of one type.
pub(super) struct VaultTransport {
    pub(super) http: Http,
    pub(super) lane: Lane,
    pub(super) host: String,
    pub(super) kind: ObjectType,
    /// The token, as the whole value of the Authorization header.
    pub(super) token: Arc<Token>,
    /// Who asks, for error texts.
    pub(super) client_id: Option<String>,
    pub(super) deadline: Instant,
}

/// The SDK's way to the token endpoint of one tenant.
pub(super) struct EntraTransport {
    pub(super) http: Http,
    pub(super) authority: String,
    /// The path that the SDK asks for.
    pub(super) path: String,
    pub(super) route: Route,
    /// Who asks, for error texts.
    pub(super) client_id: Option<String>,
}

/// Where a token request goes in truth; the SDK knows the first only.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// To the authority, as the SDK asks.
    EntraId,
    /// To the authority's AD FS, which has another path
    /// (docs/reference/azure-provider.md#entra-id).
    Adfs,
    /// To the token proxy of a cluster, under the authority's name
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
        if request.method() != Method::Get || !is_on(url, &self.host) || !is_object_path(url, self.kind) {
            return Err(Error::LeftVault { expected: format!("{}/{}", self.host, self.kind.collection()) });
        }
        let body = self.exchange(outgoing(request, reqwest::Method::GET)?).await?;
        // The SDK looks at no header of an answer to a getter.
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
    }

    /// Gets the JSON at `url`, which is an object's, a version's, or a list of versions.
    ///
    /// # Errors
    /// [`Error::LeftVault`] for another place, and whatever the vault answers.
    pub(super) async fn get(&self, url: Url) -> Result<Bytes, Error> {
        if !is_on(&url, &self.host) || !(is_object_path(&url, self.kind) || is_list_path(&url, self.kind)) {
            return Err(Error::LeftVault { expected: format!("{}/{}", self.host, self.kind.collection()) });
        }
        self.exchange(reqwest::Request::new(reqwest::Method::GET, url)).await
    }

    async fn exchange(&self, mut outgoing: reqwest::Request) -> Result<Bytes, Error> {
        let place = Place { service: Service::KeyVault, host: &self.host, what: self.kind.collection() };
        let mut bearer = HeaderValue::from_str(self.token.bearer.expose_secret())
            .map_err(|_| not_azure(place, "the token is no header"))?;
        bearer.set_sensitive(true);
        outgoing.headers_mut().insert(AUTHORIZATION, bearer);
        self.lane.turn(self.deadline).await?;
        let reply = self.http.exchange(place, outgoing, limits::OBJECT).await;
        let result = reply.and_then(|reply| accept(place, reply, self.client_id.clone()));
        self.lane.learn(&result);
        result
    }
}

impl EntraTransport {
    async fn send(&self, request: &Request) -> Result<AsyncRawResponse, Error> {
        let url = request.url();
        if request.method() != Method::Post || !is_on(url, &self.authority) || url.path() != self.path {
            return Err(Error::LeftVault { expected: format!("{}{}", self.authority, self.path) });
        }
        let mut outgoing = outgoing(request, reqwest::Method::POST)?;
        let mut place = Place { service: Service::EntraId, host: &self.authority, what: "token" };
        let reply = match &self.route {
            Route::EntraId => self.http.exchange(place, outgoing, limits::SMALL).await?,
            Route::Adfs => {
                outgoing.url_mut().set_path(ADFS_PATH);
                self.http.exchange(place, outgoing, limits::SMALL).await?
            }
            Route::TokenProxy(proxy) => {
                place = Place { service: Service::TokenProxy, host: proxy.host(), ..place };
                let way = proxy.way().await?;
                let path = format!("{}{}", way.url.path().trim_end_matches('/'), url.path());
                *outgoing.url_mut() = way.url;
                outgoing.url_mut().set_path(&path);
                outgoing.url_mut().set_query(url.query());
                let host =
                    HeaderValue::from_str(&self.authority).map_err(|_| not_azure(place, "its name is no host"))?;
                outgoing.headers_mut().insert(HOST, host);
                way.http.exchange(place, outgoing, limits::SMALL).await?
            }
        };
        let body = accept(place, reply, self.client_id.clone())?;
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
    }
}

/// Shows where it leads to; never the token.
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

/// Whether `url` is on `host`, by https, on its port, and names nobody.
fn is_on(url: &Url, host: &str) -> bool {
    url.scheme() == "https"
        && url.host_str() == Some(host)
        && url.port_or_known_default() == Some(443)
        && url.username().is_empty()
        && url.password().is_none()
}

/// Whether the path is `/<collection>/<name>/[<version>]`. The URL's parser has resolved every `..` by now.
fn is_object_path(url: &Url, kind: ObjectType) -> bool {
    let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let [collection, name, version] = segments[..] else {
        return false;
    };
    collection == kind.collection()
        && ObjectName::new(name).is_ok()
        && (version.is_empty() || ObjectVersionId::new(version).is_ok())
}

/// Whether the path is `/<collection>/<name>/versions`.
fn is_list_path(url: &Url, kind: ObjectType) -> bool {
    let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    matches!(segments[..], [collection, name, "versions"] if collection == kind.collection() && ObjectName::new(name).is_ok())
}

/// The SDK's request as one of the HTTP client, without an Authorization and under our own user agent.
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
        // The SDK's credentials and getters send none.
        Body::SeekableStream(_) => return Err(unusable()),
    }
    Ok(outgoing)
}

/// Lets a good answer's body through, and makes our error of any other.
pub(super) fn accept(place: Place<'_>, reply: Reply, client_id: Option<String>) -> Result<Bytes, Error> {
    if reply.status != 200 {
        return Err(refused(place, &reply, client_id));
    }
    if !answer::is_json(&reply.headers) {
        return Err(not_azure(place, "the answer is not JSON"));
    }
    Ok(reply.body)
}

/// Our error for an answer that is no success.
pub(super) fn refused(place: Place<'_>, reply: &Reply, client_id: Option<String>) -> Error {
    let codes = match place.service {
        Service::KeyVault => Codes::of_key_vault(&reply.body),
        Service::EntraId | Service::TokenProxy => Codes::of_entra_id(&reply.body),
        // Its texts are its own; the status says enough.
        Service::Imds => Codes::default(),
    };
    Error::Refused(Box::new(Refusal {
        service: place.service,
        host: place.host.to_owned(),
        what: place.what,
        status: reply.status,
        codes,
        request_id: answer::request_id(&reply.headers),
        retry_after: answer::retry_after(&reply.headers, OffsetDateTime::now_utc()),
        client_id,
    }))
}

/// Our error for an answer that the service does not give.
pub(super) fn not_azure(place: Place<'_>, what: &'static str) -> Error {
    Error::NotAzure { service: place.service, host: place.host.to_owned(), what }
}

/// Takes our error through the SDK.
pub(super) fn to_sdk(error: Error) -> azure_core::Error {
    azure_core::Error::new(ErrorKind::Other, error)
}

/// Takes our error out of the SDK's wrappings; they may be three levels deep.
///
/// What is not ours is a fault of the SDK's own: most often a body that it could not read, whose text may quote that body.
pub(super) fn from_sdk(error: &azure_core::Error, place: Place<'_>) -> Error {
    if let Some(ours) = find::<Error>(error) {
        return ours.clone();
    }
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        if kind == Some(&ErrorKind::DataConversion) {
            return not_azure(place, "the answer has another shape");
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
    Error::Sdk { host: place.host.to_owned(), kind }
}
