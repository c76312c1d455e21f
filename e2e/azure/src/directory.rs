//! Tenants, their applications, and every token that was handed out.
//!
//! Pure: checks credentials and remembers tokens, without HTTP and without a clock.
//! `entra` issues tokens from here and `keyvault` asks here what a token is worth.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::assertion::ClientCertificate;
use crate::random;

/// So many tokens are remembered; the oldest are forgotten, and then count as unknown.
const TOKEN_LIMIT: usize = 100_000;

/// What Entra ID usually gives: an hour, less a second.
const USUAL_LIFETIME: Duration = Duration::from_secs(3599);

/// An application known in a tenant.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) secret: Option<String>,
    /// Whether the secret has expired.
    pub(crate) expired: bool,
    pub(crate) certificates: Vec<ClientCertificate>,
    pub(crate) federations: Vec<Federation>,
    pub(crate) token_lifetime: Option<Duration>,
    /// The object id that error texts name beside the application id.
    pub(crate) object_id: String,
}

/// A federated credential: whose tokens speak for an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Federation {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
}

/// A tenant and its applications, by lower-case client id.
#[derive(Debug, Default)]
pub(crate) struct Tenant {
    pub(crate) clients: BTreeMap<String, Client>,
    pub(crate) token_lifetime: Option<Duration>,
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) object_id: String,
    pub(crate) audience: String,
    /// Unix seconds.
    pub(crate) expires: i64,
    pub(crate) revoked: bool,
}

/// All tenants and tokens.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<String, Tenant>,
    tokens: HashMap<String, Grant>,
    issued: VecDeque<String>,
}

impl Client {
    /// An application without any credential.
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
    /// Adds a tenant; one that is there stays as it is.
    pub(crate) fn add_tenant(&mut self, tenant: &str) -> &mut Tenant {
        self.tenants.entry(tenant.to_ascii_lowercase()).or_default()
    }

    /// A tenant, by id in any case.
    pub(crate) fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(&tenant.to_ascii_lowercase())
    }

    /// A tenant to be changed.
    pub(crate) fn tenant_mut(&mut self, tenant: &str) -> Option<&mut Tenant> {
        self.tenants.get_mut(&tenant.to_ascii_lowercase())
    }

    /// Makes a token that nobody can guess, and remembers what it stands for.
    pub(crate) fn issue(&mut self, tenant: &str, client_id: &str, audience: &str, now: i64) -> Option<(String, i64)> {
        let known = self.tenant(tenant)?;
        let client = known.clients.get(&client_id.to_ascii_lowercase())?;
        let lifetime = client.token_lifetime.or(known.token_lifetime);
        let lifetime = lifetime.unwrap_or(USUAL_LIFETIME).as_secs();
        let lifetime = i64::try_from(lifetime).unwrap_or(i64::MAX);
        let grant = Grant {
            tenant: tenant.to_ascii_lowercase(),
            client_id: client_id.to_ascii_lowercase(),
            object_id: client.object_id.clone(),
            audience: audience.to_owned(),
            expires: now.saturating_add(lifetime),
            revoked: false,
        };
        let token = jwt_shaped(&grant, now);
        if self.issued.len() >= TOKEN_LIMIT
            && let Some(oldest) = self.issued.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        self.issued.push_back(token.clone());
        self.tokens.insert(token.clone(), grant);
        Some((token, lifetime))
    }

    /// What a token stands for, be it still good or not.
    pub(crate) fn grant(&self, token: &str) -> Option<&Grant> {
        self.tokens.get(token)
    }

    /// Revokes the tokens that a client has, and says how many.
    pub(crate) fn revoke_tokens(&mut self, client_id: &str) -> usize {
        self.change_tokens(client_id, |grant| grant.revoked = true)
    }

    /// Makes the tokens that a client has expire at `now`, and says how many.
    pub(crate) fn expire_tokens(&mut self, client_id: &str, now: i64) -> usize {
        self.change_tokens(client_id, |grant| grant.expires = grant.expires.min(now))
    }

    /// Every token handed out, oldest first.
    pub(crate) fn issued_tokens(&self) -> Vec<String> {
        self.issued.iter().cloned().collect()
    }

    fn change_tokens(&mut self, client_id: &str, change: impl Fn(&mut Grant)) -> usize {
        let theirs = self.tokens.values_mut().filter(|grant| grant.client_id.eq_ignore_ascii_case(client_id));
        theirs.map(change).count()
    }
}

/// A token with the three parts of a JWT, of which the last is random: clients may look inside,
/// but only this emulator can say whether it is good.
fn jwt_shaped(grant: &Grant, now: i64) -> String {
    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": "azure-emulator" });
    let payload = json!({
        "aud": grant.audience,
        "iss": format!("https://sts.windows.net/{}/", grant.tenant),
        "iat": now,
        "nbf": now,
        "exp": grant.expires,
        "appid": grant.client_id,
        "oid": grant.object_id,
        "tid": grant.tenant,
        "uti": random::hex_id(),
        "ver": "1.0",
    });
    let signature = rand::random::<[[u8; 32]; 8]>().concat();
    let parts = [header.to_string().into_bytes(), payload.to_string().into_bytes(), signature];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}
