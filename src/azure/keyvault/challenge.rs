//! The scope of the token that a vault requires, learned once per host and object type.
//!
//! Each Key Vault client sends its first request without a token, and learns the scope from the
//! 401. Here the process sends that request once, not each mount. Fetches no token: `session` does.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use url::Url;

use super::claims::RequiredClaims;
use super::cloud::CloudResource;
use super::endpoint::{Endpoint, Service};
use super::error::Error;
use super::fetch_permits::NamespacePermits;
use super::http::{Http, MAX_SMALL_RESPONSE};
use super::object_type::{API_VERSION, ObjectType};
use super::single_flight::{Cacheable, Capacity, FetchRequest, SharedFetches};
use super::vault_queue::VaultQueue;
use super::www_authenticate::{Challenge, ChallengeFault, Challenges};

/// Hosts and object types. A node has a few; each costs some 300 bytes.
const CAPACITY: Capacity = Capacity { values: 1024, bytes: 1 << 20 };

/// The longest DNS name.
const MAX_HOST: usize = 253;
/// How long a scope may be: a host name, and the path of a tenant.
const MAX_SCOPE: usize = 512;

/// What a token is for: a resource and `/.default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(String);

impl Scope {
    /// The scope of the first Bearer challenge that has one.
    ///
    /// Challenges of other schemes are passed over, since the driver has no key for them:
    /// Microsoft's documentation names PoP beside Bearer
    /// (docs/reference/azure-provider.md#challenges).
    ///
    /// # Errors
    /// [`Error::ForeignChallenge`] if the resource is neither a parent domain of the vault nor the
    /// cloud's.
    pub(super) fn of(challenges: &Challenges, host: &str, resource: &CloudResource) -> Result<Option<Scope>, Error> {
        let Some(scope) = challenges.all.iter().filter(|one| one.is("Bearer")).find_map(scope_of) else {
            return Ok(None);
        };
        let asked = resource_host(&scope);
        let matches = asked.as_ref().is_some_and(|asked| {
            let parent = host.strip_suffix(asked.as_str()).is_some_and(|name| name.ends_with('.'));
            *asked == resource.host || (parent && asked.contains('.'))
        });
        match matches {
            true => Ok(Some(Scope(scope))),
            false => Err(Error::ForeignChallenge { host: host.to_owned(), asked, resource: resource.clone() }),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The host, the type, and the cloud's own resource, which decides which challenges are accepted.
type ChallengeKey = (String, ObjectType, CloudResource);

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
        let key = (request.host.clone(), object_type, request.resource.clone());
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
    pub(super) fn forget(&self, host: &str, object_type: ObjectType, resource: &CloudResource) {
        self.fetches.drop_if(&(host.to_owned(), object_type, resource.clone()), |_| true);
    }
}

/// A request for a challenge; has no credential, as all identities share the result.
#[derive(Clone)]
pub(super) struct ChallengeRequest {
    pub(super) http: Http,
    pub(super) queue: VaultQueue,
    pub(super) permits: NamespacePermits,
    pub(super) host: String,
    pub(super) resource: CloudResource,
    /// The path of any object.
    pub(super) path: String,
    pub(super) deadline: Instant,
}

/// Sends a request without a token; the challenge is in the 401.
async fn fetch_scope(request: ChallengeRequest) -> Result<Scope, Error> {
    let ChallengeRequest { http, queue, host, resource, path, deadline, permits: _ } = request;
    let endpoint = Endpoint { service: Service::KeyVault, host: &host, operation: "challenge" };
    let url = Url::parse(&format!("https://{host}{path}?api-version={API_VERSION}"))
        .map_err(|_| Error::unexpected(endpoint, "its name is not a host name"))?;
    let request = reqwest::Request::new(reqwest::Method::GET, url);
    queue.acquire(deadline).await?;
    let response = http.exchange(endpoint, request, MAX_SMALL_RESPONSE).await;
    let result = response.and_then(|response| match response.status {
        401 => {
            let challenges = Challenges::of(&response.headers);
            let scope = Scope::of(&challenges, &host, &resource)?;
            scope.ok_or_else(|| match RequiredClaims::of(&challenges) {
                Some(_) => response.refused(endpoint, None),
                None => Error::unexpected(endpoint, fault(&challenges)),
            })
        }
        200..300 => Err(Error::unexpected(endpoint, "it answers without a token")),
        _ => Err(response.refused(endpoint, None)),
    });
    queue.record(&result);
    result
}

/// What the vault's challenge lacks, so that no token can be requested.
fn fault(challenges: &Challenges) -> &'static str {
    match challenges.fault {
        Some(ChallengeFault::TooLarge) => "its WWW-Authenticate header is too large",
        Some(ChallengeFault::Malformed) => "its WWW-Authenticate header is malformed",
        None if challenges.all.iter().any(|one| one.is("Bearer")) || challenges.all.is_empty() => {
            "it does not say which token it requires"
        }
        None if challenges.all.iter().any(|one| one.is("PoP")) => {
            "it asks for a proof-of-possession (PoP) token, and accepts no Bearer token"
        }
        None => "it asks for another login than a Bearer token",
    }
}

/// The scope in a challenge like `Bearer authorization="https://…",
/// resource="https://vault.azure.net"`.
fn scope_of(challenge: &Challenge) -> Option<String> {
    // A slash at the end of the resource stays: for Entra ID it is part of the audience.
    let of_resource = || challenge.get("resource").map(|resource| format!("{resource}/.default"));
    challenge.get("scope").map(str::to_owned).or_else(of_resource)
}

/// The host of a scope, in lower case, if it is a plain https address: a DNS name without user and
/// port, and a path of few characters.
///
/// No URL parser: those of other programs may see another host in text with user, backslash, tab
/// or percent sign, and Entra ID gets the text.
fn resource_host(scope: &str) -> Option<String> {
    let (scheme, rest) = scope.split_at_checked("https://".len())?;
    let (host, path) = rest.split_once('/')?;
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let plain = scope.len() <= MAX_SCOPE
        && scheme.eq_ignore_ascii_case("https://")
        && host.len() <= MAX_HOST
        && host.split('.').all(label)
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
    plain.then(|| host.to_ascii_lowercase())
}
