//! Entra ID's two metadata documents: instance discovery and OpenID configuration.
//!
//! They hold what client libraries read, not all that the real service says.
//! Only the clouds built in count as known instances, just as a custom cloud's login host is
//! unknown to the real service.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::errors::EntraError;
use crate::answer::Answer;
use crate::call::Call;
use crate::clouds::Clouds;
use crate::world::Shared;

/// The tenant in the `authorization_endpoint` that a client asks about, else `common`.
pub(super) fn tenant_asked_for(query: &BTreeMap<String, String>) -> String {
    let endpoint = asked_endpoint(query);
    let tenant = endpoint.as_ref().and_then(Url::path_segments).and_then(|mut segments| segments.next());
    tenant.filter(|tenant| !tenant.is_empty()).unwrap_or("common").to_owned()
}

/// Which hosts are aliases of each other, and where the tenant's configuration is.
pub(super) fn instance(call: &Call) -> Answer {
    let endpoint = asked_endpoint(&call.query);
    let host = endpoint.as_ref().and_then(Url::host_str).unwrap_or_default();
    let builtin = Clouds::new(&[]);
    if builtin.of_login_host(host).is_none() {
        return EntraError::unknown_instance().answer(call);
    }
    let tenant = tenant_asked_for(&call.query);
    let metadata: Vec<Value> = builtin
        .iter()
        .map(|cloud| {
            // The host named last is the preferred one: only China has two.
            json!({
                "preferred_network": cloud.login_hosts.last(),
                "preferred_cache": cloud.login_hosts.last(),
                "aliases": cloud.login_hosts,
            })
        })
        .collect();
    let port = port_suffix(call);
    let document = json!({
        "tenant_discovery_endpoint":
            format!("https://{host}{port}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": metadata,
    });
    Answer::json(StatusCode::OK, &document)
}

/// The endpoints of a tenant.
pub(super) fn configuration(shared: &Shared, call: &Call, tenant: &str) -> Answer {
    // `common` and `organizations` are there for everyone.
    let generic = ["common", "organizations"].contains(&tenant);
    if !generic && shared.world().directory.tenant(tenant).is_none() {
        return EntraError::tenant_not_found(tenant, "invalid_tenant").answer(call);
    }
    let base = format!("https://{}{}/{tenant}", call.host, port_suffix(call));
    let version = if tenant == super::ADFS { "" } else { "/v2.0" };
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
        "issuer": format!("https://{}/{issuer}{version}", call.host),
        "authorization_endpoint": format!("{base}/oauth2{version}/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2{version}/devicecode"),
        "end_session_endpoint": format!("{base}/oauth2{version}/logout"),
        "tenant_region_scope": "EU",
        "cloud_instance_name": call.host,
    });
    Answer::json(StatusCode::OK, &document)
}

fn asked_endpoint(query: &BTreeMap<String, String>) -> Option<Url> {
    Url::parse(query.get("authorization_endpoint")?).ok()
}

/// Addresses in documents carry the port only where the client had to give one.
fn port_suffix(call: &Call) -> String {
    match call.port {
        None | Some(443) => String::new(),
        Some(port) => format!(":{port}"),
    }
}
