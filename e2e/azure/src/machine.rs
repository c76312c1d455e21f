//! The managed identities of the virtual machine whose metadata service is emulated.
//!
//! Pure: it selects an identity by the rules of the metadata service, keeps the tokens that the
//! service has handed out, and issues nothing.

use std::collections::BTreeMap;

/// Ids are in lower case.
#[derive(Debug, Default)]
pub(crate) struct MachineIdentities {
    /// Client and tenant.
    system: Option<(String, String)>,
    /// Tenants by client id.
    user: BTreeMap<String, String>,
    tokens: BTreeMap<TokenKey, KeptToken>,
}

/// Whose token for which resource. Tests assign one client in several tenants, one after another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenKey {
    pub(crate) tenant: String,
    pub(crate) client: String,
    pub(crate) resource: String,
}

/// A token that the metadata service hands out again. Its time of expiry is in the directory.
#[derive(Debug, Clone)]
pub(crate) struct KeptToken {
    pub(crate) token: String,
    /// Seconds from issue to expiry.
    pub(crate) lifetime: i64,
}

/// The query parameter that names an identity.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Selector<'a> {
    Nothing,
    Client(&'a str),
    Resource(&'a str),
}

/// The Azure resource id of a user-assigned identity, which follows from its client id.
pub(crate) fn resource_id(client: &str) -> String {
    let client = client.to_ascii_lowercase();
    format!(
        "/subscriptions/00000000-0000-4000-8000-000000000000/resourcegroups/azure-emulator/providers/\
         Microsoft.ManagedIdentity/userAssignedIdentities/{client}"
    )
}

impl MachineIdentities {
    /// Adds a user-assigned identity, or replaces the system-assigned one.
    pub(crate) fn add(&mut self, tenant: &str, client: &str, system: bool) {
        let (tenant, client) = (tenant.to_ascii_lowercase(), client.to_ascii_lowercase());
        if system {
            self.system = Some((client, tenant));
        } else {
            self.user.insert(client, tenant);
        }
    }

    pub(crate) fn remove(&mut self, client: &str) {
        let client = client.to_ascii_lowercase();
        self.user.remove(&client);
        self.system.take_if(|(system, _)| *system == client);
        self.tokens.retain(|key, _| key.client != client);
    }

    pub(crate) fn kept(&self, key: &TokenKey) -> Option<&KeptToken> {
        self.tokens.get(key)
    }

    pub(crate) fn keep(&mut self, key: TokenKey, kept: KeptToken) {
        self.tokens.insert(key, kept);
    }

    /// The client and tenant of a request; without a selector, the system-assigned identity or the
    /// only user-assigned one.
    pub(crate) fn select(&self, selector: Selector<'_>) -> Result<(String, String), &'static str> {
        let not_found = "Identity not found";
        match selector {
            Selector::Client(client) => {
                let client = client.to_ascii_lowercase();
                let system = self.system.as_ref().filter(|(system, _)| *system == client);
                let tenant = self.user.get(&client).or(system.map(|(_, tenant)| tenant));
                return tenant.map(|tenant| (client.clone(), tenant.clone())).ok_or(not_found);
            }
            Selector::Resource(id) => {
                let named = self.user.iter().find(|(client, _)| resource_id(client).eq_ignore_ascii_case(id));
                return named.map(|(client, tenant)| (client.clone(), tenant.clone())).ok_or(not_found);
            }
            Selector::Nothing => {}
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
