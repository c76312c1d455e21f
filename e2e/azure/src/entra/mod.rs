//! Entra ID: instance discovery, OpenID configuration and the token endpoint.
//!
//! Only client credentials are known; there are no users. AD FS is the tenant `adfs` of a custom cloud.
//! Checks come in the order in which the real service reports them: tenant, form, client, credential.

mod credentials;
mod discovery;
pub(crate) mod errors;

use std::collections::BTreeMap;

use hyper::header::{CACHE_CONTROL, HeaderName};
use hyper::{Method, StatusCode};
use serde_json::json;

pub(crate) use self::credentials::BINDING_AUDIENCE;
use self::credentials::{Applicant, Issuers};
use self::errors::EntraError;
use crate::answer::Answer;
use crate::call::{Call, parse_query};
use crate::clouds::Cloud;
use crate::random;
use crate::record::Kind;
use crate::world::{Shared, World, now};

/// The tenant in the paths of AD FS.
pub(crate) const ADFS: &str = "adfs";

/// What is asked of a login host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Discovery,
    Configuration,
    Token,
    Unknown,
}

impl Request {
    /// The tenant (lower case) and what is asked of it.
    pub(crate) fn parse(method: &Method, segments: &[&str], query: &BTreeMap<String, String>) -> (String, Request) {
        let get = method == Method::GET;
        let (tenant, request) = match segments {
            ["common", "discovery", "instance"] if get => (discovery::tenant_asked_for(query), Request::Discovery),
            [tenant, "v2.0", ".well-known", "openid-configuration"] if get => {
                ((*tenant).to_owned(), Request::Configuration)
            }
            [ADFS, "oauth2", "token"] if method == Method::POST => (ADFS.to_owned(), Request::Token),
            [ADFS, ".well-known", "openid-configuration"] if get => (ADFS.to_owned(), Request::Configuration),
            [ADFS, ..] => (ADFS.to_owned(), Request::Unknown),
            [tenant, "oauth2", "v2.0", "token"] if method == Method::POST => ((*tenant).to_owned(), Request::Token),
            [tenant, ..] => ((*tenant).to_owned(), Request::Unknown),
            [] => (String::new(), Request::Unknown),
        };
        (tenant.to_ascii_lowercase(), request)
    }

    /// How it is counted.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Request::Discovery => Kind::Discovery,
            Request::Configuration => Kind::OpenidConfiguration,
            Request::Token => Kind::Token,
            Request::Unknown => Kind::Other,
        }
    }
}

/// The right answer of a login host.
pub(crate) fn answer(shared: &Shared, call: &Call, tenant: &str, request: Request) -> Answer {
    let Some(cloud) = shared.clouds.of_login_host(&call.host) else {
        return not_found();
    };
    if tenant == ADFS && !cloud.custom {
        return not_found();
    }
    let answer = match request {
        Request::Discovery => discovery::instance(call),
        Request::Configuration => discovery::configuration(shared, call, tenant),
        Request::Token => {
            let form = parse_query(&String::from_utf8_lossy(&call.body));
            let granted = token(&mut shared.world(), cloud, tenant, &form, call.door.is_token_proxy());
            granted.unwrap_or_else(|error| error.answer(call))
        }
        Request::Unknown => not_found(),
    };
    decorate(answer, call)
}

/// The client that a token request names, for the journal.
pub(crate) fn client_of_form(body: &[u8]) -> Option<String> {
    parse_query(&String::from_utf8_lossy(body)).remove("client_id")
}

/// The headers that the real service puts on everything.
pub(crate) fn decorate(answer: Answer, call: &Call) -> Answer {
    let answer = answer
        .header(CACHE_CONTROL, "no-store, no-cache")
        .header(HeaderName::from_static("pragma"), "no-cache")
        .header(HeaderName::from_static("x-ms-request-id"), &random::guid());
    match &call.client_request_id {
        Some(id) => answer.header(HeaderName::from_static("client-request-id"), id),
        None => answer,
    }
}

fn not_found() -> Answer {
    let page = "<html><head><title>Sign in</title></head><body>404: no such page</body></html>";
    Answer::text(StatusCode::NOT_FOUND, "text/html; charset=utf-8", page)
}

/// Client credentials: the checks, and the token.
fn token(
    world: &mut World,
    cloud: &Cloud,
    tenant: &str,
    form: &BTreeMap<String, String>,
    through_proxy: bool,
) -> Result<Answer, EntraError> {
    let World { directory, issuers, key_sets, .. } = world;
    let issuers = Issuers { ours: issuers, others: key_sets };
    let known = directory.tenant(tenant).ok_or_else(|| EntraError::tenant_not_found(tenant, "invalid_request"))?;
    let field = |name: &'static str| {
        let given = form.get(name).filter(|value| !value.is_empty());
        given.ok_or_else(|| EntraError::missing_field(name))
    };
    let grant_type = field("grant_type")?;
    if grant_type != "client_credentials" {
        return Err(EntraError::unsupported_grant(grant_type));
    }
    let client_id = field("client_id")?;
    let resource = match form.get("resource").filter(|_| tenant == ADFS && !form.contains_key("scope")) {
        Some(resource) => resource,
        None => {
            let scope = field("scope")?;
            scope.strip_suffix("/.default").ok_or_else(|| EntraError::not_a_default_scope(scope))?
        }
    };
    let client = known
        .clients
        .get(&client_id.to_ascii_lowercase())
        .ok_or_else(|| EntraError::client_not_found(client_id, tenant))?;
    let now = now();
    Applicant { client, client_id, tenant, cloud, through_proxy, now }.check(form, issuers)?;
    if !cloud.knows_resource(resource.trim_end_matches('/')) {
        return Err(EntraError::unknown_resource(resource, tenant));
    }
    let issued = directory.issue(tenant, client_id, resource, now);
    let (token, lifetime) = issued.ok_or_else(|| EntraError::client_not_found(client_id, tenant))?;
    let document = json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    });
    Ok(Answer::json(StatusCode::OK, &document))
}
