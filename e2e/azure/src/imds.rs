//! The instance metadata service: tokens for the managed identities of the machine.
//!
//! Speaks plain HTTP on a socket of its own and knows one path. Only the client id can name an
//! identity; object and resource ids are refused, since the product never sends them.
//! Unlike the real service it makes a new token for every request.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::answer::Answer;
use crate::call::Call;
use crate::record::Kind;
use crate::world::{Shared, World, now};

/// The name under which requests are counted and faulted.
pub(crate) const PLACE: &str = "imds";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Token,
    Unknown,
}

impl Request {
    /// Reads a path.
    pub(crate) fn parse(method: &Method, segments: &[&str]) -> Request {
        match segments {
            ["metadata", "identity", "oauth2", "token"] if method == Method::GET => Request::Token,
            _ => Request::Unknown,
        }
    }

    /// How it is counted.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Request::Token => Kind::Token,
            Request::Unknown => Kind::Other,
        }
    }
}

/// The managed identities of the machine: tenants by client id, both in lower case.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    system: Option<(String, String)>,
    user: BTreeMap<String, String>,
}

impl Machine {
    /// Adds a user-assigned identity, or replaces the system-assigned one.
    pub(crate) fn add(&mut self, tenant: &str, client: &str, system: bool) {
        let (tenant, client) = (tenant.to_ascii_lowercase(), client.to_ascii_lowercase());
        if system {
            self.system = Some((client, tenant));
        } else {
            self.user.insert(client, tenant);
        }
    }

    /// Takes an identity away from the machine.
    pub(crate) fn remove(&mut self, client: &str) {
        let client = client.to_ascii_lowercase();
        self.user.remove(&client);
        self.system.take_if(|(system, _)| *system == client);
    }

    /// The client and tenant that a request means.
    fn choose(&self, client_id: Option<&str>) -> Result<(String, String), &'static str> {
        let not_found = "Identity not found";
        if let Some(client) = client_id {
            let client = client.to_ascii_lowercase();
            let system = self.system.as_ref().filter(|(system, _)| *system == client);
            let tenant = self.user.get(&client).or(system.map(|(_, tenant)| tenant));
            return tenant.map(|tenant| (client.clone(), tenant.clone())).ok_or(not_found);
        }
        if let Some(system) = &self.system {
            return Ok(system.clone());
        }
        let mut user = self.user.iter();
        match (user.next(), user.next()) {
            (None, _) => Err(not_found),
            (Some((client, tenant)), None) => Ok((client.clone(), tenant.clone())),
            (Some(_), Some(_)) => Err("Multiple user assigned identities exist, please specify the clientId / \
                                       resourceId of the identity in the token request"),
        }
    }
}

/// The right answer.
pub(crate) fn answer(shared: &Shared, call: &Call, request: Request) -> Answer {
    match request {
        Request::Token => token(shared, call).unwrap_or_else(|refusal| refusal),
        Request::Unknown => refusal(StatusCode::NOT_FOUND, "not_found", "The requested path does not exist"),
    }
}

/// What the service says with a status that a fault asks for.
pub(crate) fn answer_of_status(status: StatusCode) -> Answer {
    let (error, text) = match status.as_u16() {
        404 => ("not_found", "The identity endpoint is being updated"),
        410 => ("gone", "The identity endpoint is being updated"),
        429 => ("too_many_requests", "Too many requests"),
        500..=599 => ("unknown", "Failed to retrieve token from the Active directory"),
        _ => ("invalid_request", "The request is malformed"),
    };
    refusal(status, error, text)
}

fn token(shared: &Shared, call: &Call) -> Result<Answer, Answer> {
    let bad = |text: &str| refusal(StatusCode::BAD_REQUEST, "invalid_request", text);
    let query = |name: &str| call.query.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if call.metadata.as_deref().is_none_or(|value| !value.eq_ignore_ascii_case("true")) {
        return Err(bad("Required metadata header not specified"));
    }
    if call.forwarded {
        return Err(bad("The request must not have passed a proxy: X-Forwarded-For is there"));
    }
    let version = query("api-version").ok_or_else(|| bad("Required query variable 'api-version' is missing"))?;
    if version < "2018-02-01" {
        return Err(bad("The api-version is not supported"));
    }
    let resource = query("resource").ok_or_else(|| bad("Required query variable 'resource' is missing"))?;
    if ["object_id", "msi_res_id", "mi_res_id"].iter().any(|name| call.query.contains_key(*name)) {
        return Err(bad("azure-emulator finds identities by client_id only"));
    }
    let mut world = shared.world();
    let World { machine, directory, .. } = &mut *world;
    let (client, tenant) = machine.choose(query("client_id")).map_err(bad)?;
    if !shared.clouds.iter().any(|cloud| cloud.knows_resource(resource.trim_end_matches('/'))) {
        let text = format!(
            "AADSTS500011: The resource principal named {resource} was not found in the tenant named {tenant}."
        );
        return Err(refusal(StatusCode::BAD_REQUEST, "invalid_resource", &text));
    }
    let now = now();
    let issued = directory.issue(&tenant, &client, resource, now);
    let (token, lifetime) = issued.ok_or_else(|| bad("Identity not found"))?;
    let document = json!({
        "access_token": token,
        "client_id": client,
        "expires_in": lifetime.to_string(),
        "expires_on": now.saturating_add(lifetime).to_string(),
        "ext_expires_in": lifetime.to_string(),
        "not_before": now.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    Ok(Answer::json(StatusCode::OK, &document))
}

fn refusal(status: StatusCode, error: &str, text: &str) -> Answer {
    Answer::json(status, &json!({ "error": error, "error_description": text }))
}
