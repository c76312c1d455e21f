//! Tokens of the node's managed identities, from the metadata service of its virtual machine.
//!
//! Sends requests to IMDS and nowhere else: the SDK's credential would follow IDENTITY_ENDPOINT and
//! the like, which on a node may be another program's, and has retries of its own. Never retries:
//! `session` does.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::endpoint::{Endpoint, Service};
use super::error::{Error, StopReason};
use super::http::{Http, MAX_SMALL_RESPONSE};
use super::transport::to_sdk;

/// The address of the metadata service, the same on every node.
pub(super) const IMDS: &str = "169.254.169.254";
const PATH: &str = "/metadata/identity/oauth2/token";
/// Available since 2018, in every cloud (docs/reference/azure-provider.md#metadata-service).
const API_VERSION: &str = "2018-02-01";

/// How many tries without a response are enough: each virtual machine of Azure has the service.
const MAX_UNANSWERED: u32 = 3;

/// The longest lifetime that is accepted: tokens of managed identities are valid for a day.
const MAX_LIFETIME: u64 = 7 * 24 * 60 * 60;

#[derive(Debug, Clone)]
pub(super) struct Imds {
    /// A client of its own, which uses no proxy.
    pub(super) http: Http,
    /// That of [`IMDS`], except in tests.
    pub(super) address: SocketAddr,
}

/// The credential of a managed identity, for one token request and its retries.
pub(super) struct ManagedIdentityCredential {
    imds: Imds,
    /// A user-assigned identity; `None` is the system-assigned one.
    client_id: Option<String>,
    /// For error texts.
    shown_client_id: Option<String>,
    started: Instant,
    /// The number of tries without a response.
    unanswered: AtomicU32,
}

/// Its numbers are strings.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<Secret>,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
}

impl ManagedIdentityCredential {
    pub(super) fn new(imds: Imds, client_id: Option<String>, shown_client_id: Option<String>) -> Self {
        let (started, unanswered) = (Instant::now(), AtomicU32::new(0));
        ManagedIdentityCredential { imds, client_id, shown_client_id, started, unanswered }
    }

    async fn token(&self, scope: &str) -> Result<AccessToken, Error> {
        let endpoint = Endpoint { service: Service::Imds, host: IMDS, operation: "token" };
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let mut query = vec![("api-version", API_VERSION), ("resource", resource)];
        query.extend(self.client_id.as_deref().map(|id| ("client_id", id)));
        let url = Url::parse_with_params(&format!("http://{}{PATH}", self.imds.address), query)
            .map_err(|_| Error::unexpected(endpoint, "its address is not valid"))?;
        let mut request = reqwest::Request::new(reqwest::Method::GET, url);
        request.headers_mut().insert(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        let response = self.imds.http.exchange(endpoint, request, MAX_SMALL_RESPONSE).await;
        let response = response.map_err(|error| self.count_unanswered(error))?;
        let body = response.accept(endpoint, self.shown_client_id.clone())?;
        let token: TokenResponse =
            serde_json::from_slice(&body).map_err(|_| Error::unexpected(endpoint, "the answer has another format"))?;
        let number = |value: &Option<Value>| match value {
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
        };
        let now = OffsetDateTime::now_utc();
        // expires_in first, as it does not depend on the node's clock.
        let until = |end: u64| end.saturating_sub(u64::try_from(now.unix_timestamp()).unwrap_or_default());
        let lifetime = number(&token.expires_in).or_else(|| number(&token.expires_on).map(until)).unwrap_or_default();
        let lifetime = Duration::from_secs(lifetime.min(MAX_LIFETIME));
        // `session` refuses an empty token, as it does the SDK's.
        Ok(AccessToken::new(token.access_token.unwrap_or_else(|| Secret::new("")), now + lifetime))
    }

    /// Makes the error final after some tries without a response, as happens outside of Azure.
    fn count_unanswered(&self, error: Error) -> Error {
        if !matches!(error, Error::Unreachable { .. } | Error::NoResponse { .. }) {
            return error;
        }
        let tries = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        if tries < MAX_UNANSWERED {
            return error;
        }
        Error::GaveUp { stop: StopReason::Tries, tries, waited: self.started.elapsed(), last: Box::new(error) }
    }
}

#[async_trait]
impl TokenCredential for ManagedIdentityCredential {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        self.token(scopes.first().copied().unwrap_or_default()).await.map_err(to_sdk)
    }
}

impl fmt::Debug for ManagedIdentityCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentityCredential").field("client_id", &self.shown_client_id).finish_non_exhaustive()
    }
}
