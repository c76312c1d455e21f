//! The token endpoint of Entra ID and AD FS.
//!
//! The order of checks is that of the real service: tenant, form, client, credential.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::json;

use super::credentials::{KnownIssuers, TokenRequest};
use super::errors::EntraError;
use crate::clock::now;
use crate::clouds::Cloud;
use crate::request::entra::ADFS;
use crate::response::BufferedResponse;
use crate::state::EmulatorState;

/// Checks a token request and issues the token.
pub(super) fn token(
    state: &mut EmulatorState,
    cloud: &Cloud,
    tenant: &str,
    form: &BTreeMap<String, String>,
    through_proxy: bool,
) -> Result<BufferedResponse, EntraError> {
    let EmulatorState { directory, issuers, key_sets, .. } = state;
    let issuers = KnownIssuers { emulated: issuers, external: key_sets };
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
    TokenRequest { client, client_id, tenant, cloud, through_proxy, now }.check(form, issuers)?;
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
    Ok(BufferedResponse::json(StatusCode::OK, &document))
}
