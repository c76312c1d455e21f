//! Tokens of the node's managed identities, from the metadata service of its virtual machine.
//!
//! Asks IMDS and nothing else: the SDK's credential would go wherever IDENTITY_ENDPOINT and its like lead, which on a node may
//! be another program's, and sleeps through tries of its own. Control goes back to `session`, which tries again.

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

use super::error::{Error, Service, Stop};
use super::http::{Http, Place, limits};
use super::transport::{accept, not_azure, to_sdk};

/// The address of the metadata service, the same on every node.
pub(super) const IMDS: &str = "169.254.169.254";
/// The one path that is asked there.
const PATH: &str = "/metadata/identity/oauth2/token";
/// Since 2018, and in every cloud (docs/reference/azure-provider.md#metadata-service).
const API_VERSION: &str = "2018-02-01";

/// How often nobody may be there. On a virtual machine of Azure somebody always is, and elsewhere nobody ever.
const SILENCES: u32 = 3;

/// The longest life of a token that is believed: managed identities' live for a day.
const LONGEST: u64 = 7 * 24 * 60 * 60;

/// The way to the node's metadata service: a client of its own, which uses no proxy.
#[derive(Debug, Clone)]
pub(super) struct Imds {
    pub(super) http: Http,
    /// Where it is; elsewhere than at [`IMDS`] in tests only.
    pub(super) address: SocketAddr,
}

/// A managed identity, for one token request and its repetitions.
pub(super) struct NodeIdentity {
    imds: Imds,
    /// A user-assigned identity; `None` is the system-assigned one.
    client_id: Option<String>,
    /// Who asks, for error texts.
    shown: Option<String>,
    started: Instant,
    /// How often there was no answer at all.
    silences: AtomicU32,
}

/// The service's answer; its numbers are texts.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<Secret>,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
}

impl NodeIdentity {
    pub(super) fn new(imds: Imds, client_id: Option<String>, shown: Option<String>) -> NodeIdentity {
        NodeIdentity { imds, client_id, shown, started: Instant::now(), silences: AtomicU32::new(0) }
    }

    async fn token(&self, scope: &str) -> Result<AccessToken, Error> {
        let place = Place { service: Service::Imds, host: IMDS, what: "token" };
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let mut query = vec![("api-version", API_VERSION), ("resource", resource)];
        query.extend(self.client_id.as_deref().map(|id| ("client_id", id)));
        let url = Url::parse_with_params(&format!("http://{}{PATH}", self.imds.address), query);
        let mut request =
            reqwest::Request::new(reqwest::Method::GET, url.map_err(|_| not_azure(place, "its address is none"))?);
        request.headers_mut().insert(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        let reply = self.imds.http.exchange(place, request, limits::SMALL).await;
        let body = accept(place, reply.map_err(|error| self.silent(error))?, self.shown.clone())?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| not_azure(place, "the answer has another shape"))?;
        let number = |value: &Option<Value>| match value {
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
        };
        let now = OffsetDateTime::now_utc();
        // The time that is left does not depend on the node's clock; the end does.
        let end = |end: u64| end.saturating_sub(u64::try_from(now.unix_timestamp()).unwrap_or_default());
        let life: u64 = number(&answer.expires_in).or_else(|| number(&answer.expires_on).map(end)).unwrap_or_default();
        let life = Duration::from_secs(life.min(LONGEST));
        // An answer without a token is found by who asked.
        Ok(AccessToken::new(answer.access_token.unwrap_or_else(|| Secret::new("")), now + life))
    }

    /// Gives up after some tries that brought no answer at all, which is what happens off Azure.
    fn silent(&self, error: Error) -> Error {
        if !matches!(error, Error::Unreachable { .. } | Error::NoAnswer { .. }) {
            return error;
        }
        let tries = self.silences.fetch_add(1, Ordering::Relaxed) + 1;
        if tries < SILENCES {
            return error;
        }
        Error::GaveUp { stop: Stop::Tries, tries, waited: self.started.elapsed(), last: Box::new(error) }
    }
}

#[async_trait]
impl TokenCredential for NodeIdentity {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        self.token(scopes.first().copied().unwrap_or_default()).await.map_err(to_sdk)
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity").field("client_id", &self.shown).finish_non_exhaustive()
    }
}
