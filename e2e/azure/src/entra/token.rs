//! The token endpoints of Entra ID and AD FS.
//!
//! The order of checks is that of the real service: tenant, form, client, credential.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::credentials::{KnownIssuers, TokenRequest};
use super::errors::EntraError;
use super::scope::resource_of;
use crate::clock::now;
use crate::clouds::Cloud;
use crate::request::entra::TokenEndpoint;
use crate::response::BufferedResponse;
use crate::state::EmulatorState;

/// Where a token request arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) cloud: &'a Cloud,
    pub(super) tenant: &'a str,
    pub(super) endpoint: TokenEndpoint,
    pub(super) through_proxy: bool,
}

/// A token and what its response says about it. Times are Unix seconds.
struct Issued<'a> {
    token: String,
    resource: &'a str,
    now: i64,
    lifetime: i64,
}

/// Checks a token request and issues the token.
pub(super) fn token(
    state: &mut EmulatorState,
    asked: Asked<'_>,
    form: &BTreeMap<String, String>,
) -> Result<BufferedResponse, EntraError> {
    let EmulatorState { directory, issuers, key_sets, .. } = state;
    let issuers = KnownIssuers { emulated: issuers, external: key_sets };
    let Asked { cloud, tenant, endpoint, through_proxy } = asked;
    let known = directory.tenant(tenant).ok_or_else(|| unknown_tenant(tenant))?;
    let grant_type = field(form, "grant_type")?;
    if grant_type != "client_credentials" {
        return Err(EntraError::unsupported_grant(grant_type));
    }
    let client_id = field(form, "client_id")?;
    let resource = resource(form, endpoint)?;
    let client = known
        .clients
        .get(&client_id.to_ascii_lowercase())
        .ok_or_else(|| EntraError::client_not_found(client_id, tenant))?;
    let now = now();
    TokenRequest { client, client_id, tenant, cloud, endpoint, through_proxy, now }.check(form, issuers)?;
    if !cloud.knows_resource(resource.trim_end_matches('/')) {
        return Err(EntraError::unknown_resource(resource, tenant));
    }
    let issued = directory.issue(tenant, client_id, resource, now);
    let (token, lifetime) = issued.ok_or_else(|| EntraError::client_not_found(client_id, tenant))?;
    let document = Issued { token, resource, now, lifetime }.document(endpoint);
    Ok(BufferedResponse::json(StatusCode::OK, &document))
}

/// A field that is required and not empty.
fn field<'f>(form: &'f BTreeMap<String, String>, name: &'static str) -> Result<&'f str, EntraError> {
    let given = form.get(name).filter(|value| !value.is_empty());
    given.map(String::as_str).ok_or_else(|| EntraError::missing_field(name))
}

fn resource(form: &BTreeMap<String, String>, endpoint: TokenEndpoint) -> Result<&str, EntraError> {
    match endpoint {
        TokenEndpoint::V1 => field(form, "resource"),
        TokenEndpoint::AdFs if !form.contains_key("scope") && form.contains_key("resource") => field(form, "resource"),
        TokenEndpoint::V2 if form.contains_key("resource") => Err(EntraError::resource_not_supported()),
        TokenEndpoint::V2 | TokenEndpoint::AdFs => resource_of(field(form, "scope")?),
    }
}

/// Ids and domains differ in their error from other texts, and the names for any tenant from both.
fn unknown_tenant(tenant: &str) -> EntraError {
    let is_id = tenant.len() == 36 && tenant.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if ["common", "organizations"].contains(&tenant) {
        EntraError::generic_tenant()
    } else if is_id || tenant.contains('.') {
        EntraError::tenant_not_found(tenant, "invalid_request")
    } else {
        EntraError::malformed_tenant(tenant)
    }
}

impl Issued<'_> {
    fn document(&self, endpoint: TokenEndpoint) -> Value {
        let Issued { token, resource, now, lifetime } = self;
        match endpoint {
            TokenEndpoint::V2 => json!({
                "token_type": "Bearer",
                "expires_in": lifetime,
                "ext_expires_in": lifetime,
                "access_token": token,
            }),
            // Its numbers are texts.
            TokenEndpoint::V1 => json!({
                "token_type": "Bearer",
                "expires_in": lifetime.to_string(),
                "ext_expires_in": lifetime.to_string(),
                "expires_on": now.saturating_add(*lifetime).to_string(),
                "not_before": now.to_string(),
                "resource": resource,
                "access_token": token,
            }),
            TokenEndpoint::AdFs => json!({
                "access_token": token,
                "token_type": "bearer",
                "expires_in": lifetime,
            }),
        }
    }
}
