//! What a vault says about the token that it wants, learned once per host and object type.
//!
//! Every Key Vault client sends its first request without a token, to learn the token's scope from the 401 that comes back.
//! Here that exchange is made once per process, not once per mount; nothing here fetches a token. Control goes on to
//! `session`, which asks Entra ID for a token of the scope.

use std::time::Duration;

use futures::FutureExt as _;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use tokio::time::Instant;
use url::Url;

use super::budget::Lane;
use super::error::{Error, Service};
use super::flight::{Flights, Lasting, Room, Wanted};
use super::http::{Http, Place, limits};
use super::places::Claim;
use super::transport::{not_azure, refused};

/// How many hosts and object types are remembered. A node meets a few; each costs some 300 bytes.
const ROOM: Room = Room { values: 1024, bytes: 1 << 20 };

/// The version of Key Vault's REST API: upstream's, which the sovereign clouds have too
/// (docs/reference/azure-provider.md#http).
pub(super) const API_VERSION: &str = "7.4";

/// The kinds of objects in a vault; each has a challenge of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// Secrets.
    Secret,
    /// Keys; only their public half can be had.
    Key,
    /// Certificates, without their private keys.
    Certificate,
}

impl ObjectType {
    /// What people call it, in classes and metrics
    /// (docs/reference/azure-provider.md#object-fields).
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ObjectType::Secret => "secret",
            ObjectType::Key => "key",
            ObjectType::Certificate => "cert",
        }
    }

    /// The first component of its paths.
    pub(super) fn collection(self) -> &'static str {
        match self {
            ObjectType::Secret => "secrets",
            ObjectType::Key => "keys",
            ObjectType::Certificate => "certificates",
        }
    }
}

/// What a token is asked for: a resource, with `/.default` behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(String);

impl Scope {
    /// The scope of the 401 that `host` answered; `resource_host` is the cloud's own resource.
    ///
    /// # Errors
    /// `None` in place of a scope when the header is missing or names none. [`Error::ForeignChallenge`] when its
    /// resource is neither a parent domain of the vault nor the cloud's
    /// (docs/reference/azure-provider.md#challenges).
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

    /// The scope as text, as the token endpoint takes it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where, and for what.
/// The cloud's own resource is a part of it, since it decides which answers are believed.
type Key = (String, ObjectType, String);

/// The process's memory of challenges. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Challenges {
    flights: Flights<Key, Scope>,
}

/// A scope stays what it is until a vault refuses a token of it.
impl Lasting for Scope {
    fn until(&self) -> Instant {
        Instant::now() + Duration::from_secs(24 * 60 * 60)
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Default for Challenges {
    fn default() -> Challenges {
        Challenges { flights: Flights::new(ROOM) }
    }
}

impl Challenges {
    /// What the vault wants for objects of `kind`: known, or asked for once for all who wait.
    ///
    /// # Errors
    /// What asking brought; it is shared by all who wait for it, whoever they are, for the question names nobody.
    pub(super) async fn scope(&self, kind: ObjectType, question: Question) -> Result<Scope, Error> {
        let key = (question.host.clone(), kind, question.resource_host.clone());
        let Question { deadline, host, lane, claim, .. } = &question;
        let (rank, claim) = (lane.rank().clone(), claim.clone());
        let wanted = Wanted { key, proof: [0; 32], deadline: *deadline, rank, claim, host };
        self.flights.get(wanted, |_| true, || ask(question.clone()).boxed()).await
    }

    /// Forgets what `host` wants, after it refused a token of that scope.
    pub(super) fn forget(&self, host: &str, kind: ObjectType, resource_host: &str) {
        self.flights.drop_if(&(host.to_owned(), kind, resource_host.to_owned()), |_| true);
    }
}

/// What it takes to ask a vault what it wants.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) http: Http,
    pub(super) lane: Lane,
    pub(super) claim: Claim,
    pub(super) host: String,
    pub(super) resource_host: String,
    /// The path of any object.
    pub(super) path: String,
    pub(super) deadline: Instant,
}

/// Sends a request without a token, to learn what the vault wants.
///
/// Knows no credential: the answer, also a bad one, is shared by everybody who waits for it, whoever they are.
async fn ask(question: Question) -> Result<Scope, Error> {
    let Question { http, lane, host, resource_host, path, deadline, claim: _ } = question;
    let place = Place { service: Service::KeyVault, host: &host, what: "challenge" };
    let url = Url::parse(&format!("https://{host}{path}?api-version={API_VERSION}"))
        .map_err(|_| not_azure(place, "its name is no host"))?;
    let request = reqwest::Request::new(reqwest::Method::GET, url);
    lane.turn(deadline).await?;
    let result = http.exchange(place, request, limits::SMALL).await.and_then(|reply| match reply.status {
        401 => Scope::of(&reply.headers, &host, &resource_host)?
            .ok_or_else(|| not_azure(place, "it does not say which token it wants")),
        200..300 => Err(not_azure(place, "it answers without a token")),
        _ => Err(refused(place, &reply, None)),
    });
    lane.learn(&result);
    result
}

/// The scope in a challenge like `Bearer authorization="https://…", resource="https://vault.azure.net"`.
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
    // A slash at the resource's end stays, for Entra ID takes it as a part of the audience.
    value("scope").or_else(|| value("resource").map(|resource| format!("{resource}/.default")))
}
