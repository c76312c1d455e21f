//! The seed document: a whole scene in one JSON file.
//!
//! Unknown fields are errors, so that a typing mistake does not pass for a default.
//! It goes through the same checks as everything set from outside, in `world`.

use std::time::Duration;

use serde::Deserialize;

use crate::object::SecretAttributes;
use crate::world::{Access, PAGE_SIZE, Permission, Shared, World, WorldError, now};

/// Tenants and vaults to begin with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The tenants.
    #[serde(default)]
    pub tenants: Vec<SeedTenant>,
    /// The vaults; their tenants must be known.
    #[serde(default)]
    pub vaults: Vec<SeedVault>,
}

/// A tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedTenant {
    /// Its id.
    pub id: String,
    /// How long its tokens live, if not the usual hour.
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
    /// How long its tokens live, if not as long as the tenant's.
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
    /// How it speaks of refusals.
    #[serde(default = "policy")]
    pub access: Access,
    /// The size of its list pages.
    #[serde(default = "page_size")]
    pub page_size: usize,
    /// Who may do what.
    #[serde(default)]
    pub grants: Vec<SeedGrant>,
    /// What is in it.
    #[serde(default)]
    pub secrets: Vec<SeedSecret>,
}

/// What one client may do in a vault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedGrant {
    /// The client id.
    pub client: String,
    /// The permissions.
    pub permissions: Vec<Permission>,
}

/// A version of a secret; several of one name make a history.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedSecret {
    /// The secret's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Its version; a random one if not given.
    #[serde(default)]
    pub version: Option<String>,
    /// The rest.
    #[serde(default)]
    pub attributes: SecretAttributes,
}

impl Seed {
    /// Adds what the document names. It ends at the first error and keeps what came before.
    pub(crate) fn apply(&self, shared: &Shared) -> Result<(), WorldError> {
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
    fn apply(&self, shared: &Shared) -> Result<(), WorldError> {
        let mut world = shared.world();
        let tenant = world.directory.add_tenant(&self.id);
        tenant.token_lifetime = self.token_lifetime_seconds.map(Duration::from_secs);
        for client in &self.clients {
            client.apply(&self.id, &mut world)?;
        }
        Ok(())
    }
}

impl SeedClient {
    /// Adds the client to a tenant.
    fn apply(&self, tenant: &str, world: &mut World) -> Result<(), WorldError> {
        let client = world.add_client(tenant, &self.id, &self.secret)?;
        client.expired = self.expired;
        client.token_lifetime = self.token_lifetime_seconds.map(Duration::from_secs);
        Ok(())
    }
}

impl SeedVault {
    fn apply(&self, shared: &Shared) -> Result<(), WorldError> {
        shared.add_vault(&self.name, &self.suffix, &self.tenant)?;
        let mut world = shared.world();
        let vault = world.vault(&self.name)?;
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
