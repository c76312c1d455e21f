//! Tenants, their applications, and the tokens that were issued.
//!
//! Pure: no HTTP, and the time is an argument. `entra` and `imds` issue tokens from here, and
//! `keyvault` looks them up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::assertion::ClientCertificate;
use crate::random;

/// The oldest tokens beyond this limit are dropped, and are unknown from then on.
const TOKEN_LIMIT: usize = 100_000;

/// The default of Entra ID: an hour, less a second.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3599);

/// The audience of tokens that only a token proxy accepts.
pub(crate) const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";

/// An application of a tenant.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) secret: Option<String>,
    pub(crate) expired: bool,
    pub(crate) certificates: Vec<ClientCertificate>,
    pub(crate) federations: Vec<Federation>,
    pub(crate) token_lifetime: Option<Duration>,
    /// Part of error texts beside the application id.
    pub(crate) object_id: String,
}

/// A federated credential: tokens with these claims authenticate an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Federation {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
}

/// A tenant and its applications, by client id in lower case.
#[derive(Debug, Default)]
pub(crate) struct Tenant {
    pub(crate) clients: BTreeMap<String, Client>,
    pub(crate) token_lifetime: Option<Duration>,
}

/// What a token was issued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedToken {
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) object_id: String,
    pub(crate) audience: String,
    /// Unix seconds.
    pub(crate) expires: i64,
    pub(crate) revoked: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<String, Tenant>,
    tokens: HashMap<String, IssuedToken>,
    issued: VecDeque<String>,
}

impl Client {
    /// An application without credentials.
    pub(crate) fn new() -> Client {
        Client {
            secret: None,
            expired: false,
            certificates: Vec::new(),
            federations: Vec::new(),
            token_lifetime: None,
            object_id: random::guid(),
        }
    }
}

impl Directory {
    /// Adds a tenant; an existing one does not change.
    pub(crate) fn add_tenant(&mut self, tenant: &str) -> &mut Tenant {
        self.tenants.entry(tenant.to_ascii_lowercase()).or_default()
    }

    /// Ids are compared without case.
    pub(crate) fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(&tenant.to_ascii_lowercase())
    }

    pub(crate) fn tenant_mut(&mut self, tenant: &str) -> Option<&mut Tenant> {
        self.tenants.get_mut(&tenant.to_ascii_lowercase())
    }

    /// Issues a token, and returns it with its lifetime in seconds; `None` for an unknown client.
    pub(crate) fn issue(&mut self, tenant: &str, client_id: &str, audience: &str, now: i64) -> Option<(String, i64)> {
        let known = self.tenant(tenant)?;
        let client = known.clients.get(&client_id.to_ascii_lowercase())?;
        let lifetime = client.token_lifetime.or(known.token_lifetime);
        let lifetime = lifetime.unwrap_or(DEFAULT_LIFETIME).as_secs();
        let lifetime = i64::try_from(lifetime).unwrap_or(i64::MAX);
        let issued = IssuedToken {
            tenant: tenant.to_ascii_lowercase(),
            client_id: client_id.to_ascii_lowercase(),
            object_id: client.object_id.clone(),
            audience: audience.to_owned(),
            expires: now.saturating_add(lifetime),
            revoked: false,
        };
        let token = jwt_shaped(&issued, now);
        if self.issued.len() >= TOKEN_LIMIT
            && let Some(oldest) = self.issued.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        self.issued.push_back(token.clone());
        self.tokens.insert(token.clone(), issued);
        Some((token, lifetime))
    }

    /// The client with this object id.
    pub(crate) fn client_of_object(&self, object_id: &str) -> Option<String> {
        let mut clients = self.tenants.values().flat_map(|tenant| &tenant.clients);
        let known = clients.find(|(_, client)| client.object_id.eq_ignore_ascii_case(object_id));
        known.map(|(client_id, _)| client_id.clone())
    }

    /// Looks a token up, also one that has expired or was revoked.
    pub(crate) fn lookup(&self, token: &str) -> Option<&IssuedToken> {
        self.tokens.get(token)
    }

    /// Revokes all tokens of a client, and returns how many.
    pub(crate) fn revoke_tokens(&mut self, client_id: &str) -> usize {
        self.change_tokens(client_id, |issued| issued.revoked = true)
    }

    /// Makes all tokens of a client expire at `now`, and returns how many.
    pub(crate) fn expire_tokens(&mut self, client_id: &str, now: i64) -> usize {
        self.change_tokens(client_id, |issued| issued.expires = issued.expires.min(now))
    }

    /// Oldest first.
    pub(crate) fn issued_tokens(&self) -> Vec<String> {
        self.issued.iter().cloned().collect()
    }

    fn change_tokens(&mut self, client_id: &str, change: impl Fn(&mut IssuedToken)) -> usize {
        let of_client = self.tokens.values_mut().filter(|issued| issued.client_id.eq_ignore_ascii_case(client_id));
        of_client.map(change).count()
    }
}

/// A JWT whose signature is random: clients can read the claims, and only the emulator can tell
/// whether it issued the token.
fn jwt_shaped(issued: &IssuedToken, now: i64) -> String {
    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": "azure-emulator" });
    let payload = json!({
        "aud": issued.audience,
        "iss": format!("https://sts.windows.net/{}/", issued.tenant),
        "iat": now,
        "nbf": now,
        "exp": issued.expires,
        "appid": issued.client_id,
        "oid": issued.object_id,
        "tid": issued.tenant,
        "uti": random::hex_id(),
        "ver": "1.0",
    });
    let signature = rand::random::<[[u8; 32]; 8]>().concat();
    let parts = [header.to_string().into_bytes(), payload.to_string().into_bytes(), signature];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}
