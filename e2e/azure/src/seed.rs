//! The seed document: tenants, vaults and secrets in one JSON file.
//!
//! Unknown fields are errors, so that a typing mistake does not select a default. The checks are
//! those of `state` and `vault`.

use std::time::Duration;

use serde::Deserialize;

use crate::clock::now;
use crate::error::SetupError;
use crate::limits::PAGE_SIZE;
use crate::object::ObjectAttributes;
use crate::permission::{Access, Permission};
use crate::state::{EmulatorState, SharedState};

/// A seed document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The tenants.
    #[serde(default)]
    pub tenants: Vec<SeedTenant>,
    /// The vaults; their tenants must exist.
    #[serde(default)]
    pub vaults: Vec<SeedVault>,
}

/// A tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedTenant {
    /// Its id.
    pub id: String,
    /// The lifetime of its tokens; an hour by default.
    #[serde(default)]
    pub token_lifetime_seconds: Option<u64>,
    /// Its applications.
    #[serde(default)]
    pub clients: Vec<SeedClient>,
}

/// An application.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedClient {
    /// Its client id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Whether the secret has expired.
    #[serde(default)]
    pub expired: bool,
    /// The lifetime of its tokens; by default that of the tenant.
    #[serde(default)]
    pub token_lifetime_seconds: Option<u64>,
}

/// A vault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedVault {
    /// Its name, the first label of its host.
    pub name: String,
    /// The rest of its host.
    #[serde(default = "public_suffix")]
    pub suffix: String,
    /// Its tenant.
    pub tenant: String,
    /// The permission model, which changes the text of refusals.
    #[serde(default = "policy")]
    pub access: Access,
    /// The size of its list pages.
    #[serde(default = "page_size")]
    pub page_size: usize,
    /// The permissions of clients.
    #[serde(default)]
    pub grants: Vec<SeedGrant>,
    /// Its secrets.
    #[serde(default)]
    pub secrets: Vec<SeedSecret>,
}

/// The permissions of one client in a vault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedGrant {
    /// The client id.
    pub client: String,
    /// The permissions.
    pub permissions: Vec<Permission>,
}

/// A version of a secret; several with one name are its history.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedSecret {
    /// The secret's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Its version; a random one by default.
    #[serde(default)]
    pub version: Option<String>,
    /// Its attributes.
    #[serde(default)]
    pub attributes: ObjectAttributes,
}

impl Seed {
    /// Adds tenants and vaults in order; stops at the first error without undoing what it added.
    pub(crate) fn apply(&self, shared: &SharedState) -> Result<(), SetupError> {
        for tenant in &self.tenants {
            tenant.apply(shared)?;
        }
        for vault in &self.vaults {
            vault.apply(shared)?;
        }
        Ok(())
    }
}

impl SeedTenant {
    fn apply(&self, shared: &SharedState) -> Result<(), SetupError> {
        let mut state = shared.lock();
        let tenant = state.directory.add_tenant(&self.id);
        tenant.token_lifetime = self.token_lifetime_seconds.map(Duration::from_secs);
        for client in &self.clients {
            client.apply(&self.id, &mut state)?;
        }
        Ok(())
    }
}

impl SeedClient {
    fn apply(&self, tenant: &str, state: &mut EmulatorState) -> Result<(), SetupError> {
        let client = state.add_client(tenant, &self.id, &self.secret)?;
        client.expired = self.expired;
        client.token_lifetime = self.token_lifetime_seconds.map(Duration::from_secs);
        Ok(())
    }
}

impl SeedVault {
    fn apply(&self, shared: &SharedState) -> Result<(), SetupError> {
        shared.add_vault(&self.name, &self.suffix, &self.tenant)?;
        let mut state = shared.lock();
        let vault = state.vault(&self.name)?;
        vault.access = self.access;
        vault.set_page_size(self.page_size)?;
        for grant in &self.grants {
            vault.grant(&grant.client, &grant.permissions);
        }
        for secret in &self.secrets {
            let attributes = secret.attributes.clone();
            let version = secret.version.as_deref();
            vault.put_secret(&secret.name, version, &secret.value, attributes, now())?;
        }
        Ok(())
    }
}

fn public_suffix() -> String {
    "vault.azure.net".to_owned()
}

fn policy() -> Access {
    Access::Policy
}

fn page_size() -> usize {
    PAGE_SIZE
}
