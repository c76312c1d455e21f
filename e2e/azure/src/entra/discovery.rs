//! Entra ID's two metadata documents: instance discovery and OpenID configuration.
//!
//! They have the fields that client libraries read. Only the built-in clouds are known instances:
//! the real service does not know the login host of a custom cloud, either.

use hyper::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::errors::EntraError;
use crate::clouds::Clouds;
use crate::request::entra::{ADFS, requested_endpoint, requested_tenant};
use crate::request::parsed::ParsedRequest;
use crate::response::BufferedResponse;
use crate::state::SharedState;

/// The aliases of each login host, and the URL of the tenant's configuration.
pub(super) fn instance(request: &ParsedRequest) -> BufferedResponse {
    let endpoint = requested_endpoint(&request.query);
    let host = endpoint.as_ref().and_then(Url::host_str).unwrap_or_default();
    let builtin = Clouds::new(&[]);
    if builtin.of_login_host(host).is_none() {
        return EntraError::unknown_instance().response(request);
    }
    let tenant = requested_tenant(&request.query);
    let metadata: Vec<Value> = builtin
        .iter()
        .map(|cloud| {
            // The last host is the preferred one: only China has two.
            json!({
                "preferred_network": cloud.login_hosts.last(),
                "preferred_cache": cloud.login_hosts.last(),
                "aliases": cloud.login_hosts,
            })
        })
        .collect();
    let port = port_suffix(request);
    let document = json!({
        "tenant_discovery_endpoint":
            format!("https://{host}{port}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": metadata,
    });
    BufferedResponse::json(StatusCode::OK, &document)
}

/// The endpoints of a tenant.
pub(super) fn configuration(shared: &SharedState, request: &ParsedRequest, tenant: &str) -> BufferedResponse {
    // `common` and `organizations` exist without a tenant.
    let generic = ["common", "organizations"].contains(&tenant);
    if !generic && shared.lock().directory.tenant(tenant).is_none() {
        return EntraError::tenant_not_found(tenant, "invalid_tenant").response(request);
    }
    let base = format!("https://{}{}/{tenant}", request.host, port_suffix(request));
    let version = if tenant == ADFS { "" } else { "/v2.0" };
    let issuer = if generic { "{tenantid}" } else { tenant };
    let document = json!({
        "token_endpoint": format!("{base}/oauth2{version}/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": format!("https://{}/{issuer}{version}", request.host),
        "authorization_endpoint": format!("{base}/oauth2{version}/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2{version}/devicecode"),
        "end_session_endpoint": format!("{base}/oauth2{version}/logout"),
        "tenant_region_scope": "EU",
        "cloud_instance_name": request.host,
    });
    BufferedResponse::json(StatusCode::OK, &document)
}

/// URLs in documents have a port only if the request had one.
fn port_suffix(request: &ParsedRequest) -> String {
    match request.port {
        None | Some(443) => String::new(),
        Some(port) => format!(":{port}"),
    }
}
