//! The scope of the token that a vault requires, learned once per host and object type.
//!
//! Each Key Vault client sends its first request without a token, and learns the scope from the
//! 401. Here the process sends that request once, not each mount. Fetches no token: `session` does.

use std::time::Duration;

use futures::FutureExt as _;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use tokio::time::Instant;
use url::Url;

use super::endpoint::{Endpoint, Service};
use super::error::Error;
use super::fetch_permits::NamespacePermits;
use super::http::{Http, MAX_SMALL_RESPONSE};
use super::object_type::{API_VERSION, ObjectType};
use super::single_flight::{Cacheable, Capacity, FetchRequest, SharedFetches};
use super::vault_queue::VaultQueue;

/// Hosts and object types. A node has a few; each costs some 300 bytes.
const CAPACITY: Capacity = Capacity { values: 1024, bytes: 1 << 20 };

/// What a token is for: a resource and `/.default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(String);

impl Scope {
    /// The scope in the headers of a 401 of `host`, if there is one; `resource_host` is the cloud's
    /// own resource.
    ///
    /// # Errors
    /// [`Error::ForeignChallenge`] if the resource is neither a parent domain of the vault nor the
    /// cloud's (docs/reference/azure-provider.md#challenges).
    pub(super) fn of(headers: &HeaderMap, host: &str, resource_host: &str) -> Result<Option<Scope>, Error> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
        let Some(scope) = challenges.filter_map(scope_of).next() else {
            return Ok(None);
        };
        let resource = Url::parse(&scope).ok().filter(|url| url.scheme() == "https");
        let matches = resource.as_ref().and_then(Url::domain).is_some_and(|resource| {
            resource == resource_host
                || host.strip_suffix(resource).is_some_and(|name| name.ends_with('.') && resource.contains('.'))
        });
        match matches {
            true => Ok(Some(Scope(scope))),
            false => Err(Error::ForeignChallenge { host: host.to_owned() }),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The host, the type, and the cloud's own resource, which decides which challenges are accepted.
type ChallengeKey = (String, ObjectType, String);

/// The process's cache of scopes. Cheap to clone; all clones share it.
#[derive(Clone)]
pub(super) struct ChallengeCache {
    fetches: SharedFetches<ChallengeKey, Scope>,
}

/// A scope is valid until the vault refuses a token with it.
impl Cacheable for Scope {
    fn until(&self) -> Instant {
        Instant::now() + Duration::from_secs(24 * 60 * 60)
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Default for ChallengeCache {
    fn default() -> ChallengeCache {
        ChallengeCache { fetches: SharedFetches::new(CAPACITY) }
    }
}

impl ChallengeCache {
    /// The scope for objects of this type: cached, or requested once for all callers that wait.
    ///
    /// # Errors
    /// Those of the request, for all callers that wait: it carries no credential.
    pub(super) async fn scope(&self, object_type: ObjectType, request: ChallengeRequest) -> Result<Scope, Error> {
        let key = (request.host.clone(), object_type, request.resource_host.clone());
        let fetch = FetchRequest {
            key,
            proof: [0; 32],
            deadline: request.deadline,
            priority: request.queue.priority().clone(),
            permits: request.permits.clone(),
            host: &request.host,
        };
        self.fetches.get(fetch, |_| true, || fetch_scope(request.clone()).boxed()).await
    }

    /// Drops the scope of `host`, after it refused a token with that scope.
    pub(super) fn forget(&self, host: &str, object_type: ObjectType, resource_host: &str) {
        self.fetches.drop_if(&(host.to_owned(), object_type, resource_host.to_owned()), |_| true);
    }
}

/// A request for a challenge; has no credential, as all identities share the result.
#[derive(Clone)]
pub(super) struct ChallengeRequest {
    pub(super) http: Http,
    pub(super) queue: VaultQueue,
    pub(super) permits: NamespacePermits,
    pub(super) host: String,
    pub(super) resource_host: String,
    /// The path of any object.
    pub(super) path: String,
    pub(super) deadline: Instant,
}

/// Sends a request without a token; the challenge is in the 401.
async fn fetch_scope(request: ChallengeRequest) -> Result<Scope, Error> {
    let ChallengeRequest { http, queue, host, resource_host, path, deadline, permits: _ } = request;
    let endpoint = Endpoint { service: Service::KeyVault, host: &host, operation: "challenge" };
    let url = Url::parse(&format!("https://{host}{path}?api-version={API_VERSION}"))
        .map_err(|_| Error::unexpected(endpoint, "its name is not a host name"))?;
    let request = reqwest::Request::new(reqwest::Method::GET, url);
    queue.acquire(deadline).await?;
    let response = http.exchange(endpoint, request, MAX_SMALL_RESPONSE).await;
    let result = response.and_then(|response| match response.status {
        401 => Scope::of(&response.headers, &host, &resource_host)?
            .ok_or_else(|| Error::unexpected(endpoint, "it does not say which token it requires")),
        200..300 => Err(Error::unexpected(endpoint, "it answers without a token")),
        _ => Err(response.refused(endpoint, None)),
    });
    queue.record(&result);
    result
}

/// The scope in a challenge like `Bearer authorization="https://…",
/// resource="https://vault.azure.net"`.
fn scope_of(challenge: &str) -> Option<String> {
    let (scheme, parameters) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return None;
    }
    let value = |wanted: &str| {
        parameters.split(',').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_matches('"');
            (name.trim().eq_ignore_ascii_case(wanted) && !value.is_empty()).then(|| value.to_owned())
        })
    };
    // A slash at the end of the resource stays: for Entra ID it is part of the audience.
    value("scope").or_else(|| value("resource").map(|resource| format!("{resource}/.default")))
}
