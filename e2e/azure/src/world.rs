//! Everything the emulator knows, behind one lock: tenants, vaults, faults, records.
//!
//! Every change from outside, be it by the library handle, the admin API or a seed file, is a
//! method here that checks its input and says what to fix. Requests read it through `dispatch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clouds::Clouds;
use crate::directory::{Client, Directory, Tenant};
use crate::fault::{self, Fault, FaultBook};
use crate::keyvault::names;
use crate::random;
use crate::record::Recorder;
use crate::secret::{Refusal, SecretAttributes, SecretChange, SecretStore};

/// The page size of Key Vault lists, which is also the largest a client can ask for.
pub(crate) const PAGE_SIZE: usize = 25;

/// What a client may do in a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read values, and deleted secrets by name.
    Get,
    /// List names and versions.
    List,
    /// Set values and change attributes.
    Set,
    /// Delete.
    Delete,
    /// Bring deleted secrets back.
    Recover,
    /// Remove deleted secrets for good.
    Purge,
}

impl Permission {
    /// All of them.
    pub const ALL: [Permission; 6] = [
        Permission::Get,
        Permission::List,
        Permission::Set,
        Permission::Delete,
        Permission::Recover,
        Permission::Purge,
    ];
}

/// How a vault decides on access; it changes only the text of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Access policies of the vault.
    Policy,
    /// Azure role assignments.
    Rbac,
}

/// Why a change to the emulator's world was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorldError {
    /// No such tenant.
    #[error("there is no tenant {0:?}: add it first (add_tenant, PUT /tenants/{0})")]
    UnknownTenant(String),
    /// No such client in the tenant.
    #[error("there is no client {client:?} in tenant {tenant:?}: add it first (add_client)")]
    UnknownClient {
        /// The tenant asked for.
        tenant: String,
        /// The client asked for.
        client: String,
    },
    /// No such vault.
    #[error("there is no vault {0:?}: add it first (add_vault, PUT /vaults/{0})")]
    UnknownVault(String),
    /// No such secret or version.
    #[error("there is no secret or version {0:?} in this vault: set it first")]
    UnknownSecret(String),
    /// The secret is deleted, or not deleted, or in use, so that the change makes no sense.
    #[error("secret {name:?} {problem}")]
    WrongState {
        /// The secret's name.
        name: String,
        /// What stands in the way.
        problem: &'static str,
    },
    /// A name, version, suffix or page size that Azure would not have.
    #[error("{what} {value:?} is not valid: {rule}")]
    Invalid {
        /// What kind of thing it is.
        what: &'static str,
        /// The value given.
        value: String,
        /// What it should look like.
        rule: String,
    },
}

/// One vault.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) name: String,
    pub(crate) suffix: String,
    pub(crate) tenant: String,
    pub(crate) access: Access,
    pub(crate) page_size: usize,
    pub(crate) grants: BTreeMap<String, BTreeSet<Permission>>,
    pub(crate) secrets: SecretStore,
}

/// Everything that can change while the emulator runs.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) directory: Directory,
    pub(crate) vaults: BTreeMap<String, Vault>,
    pub(crate) faults: FaultBook,
    pub(crate) recorder: Recorder,
    pub(crate) base_latency: Duration,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clouds: Clouds,
    world: Mutex<World>,
}

impl Shared {
    /// An empty world.
    pub(crate) fn new(clouds: Clouds, base_latency: Duration) -> Shared {
        let world = World { base_latency, ..World::default() };
        Shared { clouds, world: Mutex::new(world) }
    }

    /// The world, for a short while. A panic elsewhere leaves it usable: no change takes two steps.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a vault; one of the same name keeps its secrets and grants.
    pub(crate) fn add_vault(&self, name: &str, suffix: &str, tenant: &str) -> Result<(), WorldError> {
        let name = name.to_ascii_lowercase();
        let suffix = suffix.to_ascii_lowercase();
        if !names::is_vault_name(&name) {
            let rule = "3 to 24 letters, digits and hyphens, beginning with a letter";
            return Err(invalid("vault name", &name, rule));
        }
        if self.clouds.of_suffix(&suffix).is_none() {
            let known = self.clouds.suffixes().join(", ");
            let rule = format!("known are {known}; a custom one needs --dns-name '*.{suffix}'");
            return Err(invalid("vault suffix", &suffix, &rule));
        }
        let mut world = self.world();
        if world.directory.tenant(tenant).is_none() {
            return Err(WorldError::UnknownTenant(tenant.to_owned()));
        }
        let vault = world.vaults.entry(name.clone()).or_insert_with(|| Vault {
            name,
            suffix: String::new(),
            tenant: String::new(),
            access: Access::Policy,
            page_size: PAGE_SIZE,
            grants: BTreeMap::new(),
            secrets: SecretStore::default(),
        });
        vault.suffix = suffix;
        vault.tenant = tenant.to_ascii_lowercase();
        Ok(())
    }
}

impl World {
    /// A tenant that must be there.
    pub(crate) fn tenant(&mut self, tenant: &str) -> Result<&mut Tenant, WorldError> {
        let known = self.directory.tenant_mut(tenant);
        known.ok_or_else(|| WorldError::UnknownTenant(tenant.to_owned()))
    }

    /// A client that must be there.
    pub(crate) fn client(&mut self, tenant: &str, client: &str) -> Result<&mut Client, WorldError> {
        let known = self.tenant(tenant)?.clients.get_mut(&client.to_ascii_lowercase());
        known.ok_or_else(|| WorldError::UnknownClient { tenant: tenant.to_owned(), client: client.to_owned() })
    }

    /// Adds a client, or gives one that is there a new secret that is not expired.
    pub(crate) fn add_client(&mut self, tenant: &str, client: &str, secret: &str) -> Result<&mut Client, WorldError> {
        let clients = &mut self.tenant(tenant)?.clients;
        let entry = clients.entry(client.to_ascii_lowercase()).or_insert_with(|| Client {
            secret: String::new(),
            expired: false,
            token_lifetime: None,
            object_id: random::guid(),
        });
        entry.secret = secret.to_owned();
        entry.expired = false;
        Ok(entry)
    }

    /// Adds a fault rule.
    pub(crate) fn add_fault(&mut self, fault: Fault) -> Result<(), WorldError> {
        let checked = fault::check(&fault);
        checked.map_err(|status| invalid("fault status", &status, "from 200 to 599"))?;
        self.faults.add(fault);
        Ok(())
    }

    /// A vault that must be there.
    pub(crate) fn vault(&mut self, name: &str) -> Result<&mut Vault, WorldError> {
        let known = self.vaults.get_mut(&name.to_ascii_lowercase());
        known.ok_or_else(|| WorldError::UnknownVault(name.to_owned()))
    }
}

impl Vault {
    /// Lets a client do something; what it may already do stays.
    pub(crate) fn grant(&mut self, client: &str, permissions: &[Permission]) {
        let granted = self.grants.entry(client.to_ascii_lowercase()).or_default();
        granted.extend(permissions);
    }

    /// Takes permissions away.
    pub(crate) fn revoke(&mut self, client: &str, permissions: &[Permission]) {
        if let Some(granted) = self.grants.get_mut(&client.to_ascii_lowercase()) {
            granted.retain(|granted| !permissions.contains(granted));
        }
    }

    /// Sets the page size of lists.
    pub(crate) fn set_page_size(&mut self, size: usize) -> Result<(), WorldError> {
        if !(1..=PAGE_SIZE).contains(&size) {
            let rule = format!("from 1 to {PAGE_SIZE}");
            return Err(invalid("page size", &size.to_string(), &rule));
        }
        self.page_size = size;
        Ok(())
    }

    /// Sets a secret from outside, with a version of one's choice or a random one.
    pub(crate) fn put_secret(
        &mut self,
        name: &str,
        version: Option<&str>,
        value: &str,
        attributes: SecretAttributes,
        now: i64,
    ) -> Result<String, WorldError> {
        if !names::is_object_name(name) {
            return Err(invalid("secret name", name, "1 to 127 letters, digits and hyphens"));
        }
        if value.len() > names::MAX_VALUE_BYTES {
            let rule = format!("a value has at most {} bytes", names::MAX_VALUE_BYTES);
            return Err(invalid("value of secret", name, &rule));
        }
        let version = version.map_or_else(random::hex_id, str::to_owned);
        if !names::is_version(&version) {
            return Err(invalid("version", &version, "32 lower-case hexadecimal digits"));
        }
        let set = self.secrets.set(name, &version, value, attributes, now);
        set.map_err(|refusal| refused(refusal, name))?;
        Ok(version)
    }

    /// Changes attributes from outside.
    pub(crate) fn change_secret(
        &mut self,
        name: &str,
        version: Option<&str>,
        change: SecretChange,
        now: i64,
    ) -> Result<(), WorldError> {
        let changed = self.secrets.update(name, version, change, now);
        changed.map(|_| ()).map_err(|refusal| refused(refusal, version.unwrap_or(name)))
    }

    /// Deletes from outside.
    pub(crate) fn delete_secret(&mut self, name: &str, now: i64) -> Result<(), WorldError> {
        let deleted = self.secrets.delete(name, now);
        deleted.map(|_| ()).map_err(|refusal| refused(refusal, name))
    }

    /// Purges from outside.
    pub(crate) fn purge_secret(&mut self, name: &str) -> Result<(), WorldError> {
        let purged = self.secrets.purge(name);
        purged.map_err(|refusal| refused(refusal, name))
    }
}

/// A refusal of the store in words for the one who sets the scene.
pub(crate) fn refused(refusal: Refusal, name: &str) -> WorldError {
    let problem = match refusal {
        Refusal::Missing => return WorldError::UnknownSecret(name.to_owned()),
        Refusal::NotDeleted => "is not deleted: delete it first",
        Refusal::Deleted => "is deleted: purge or recover it first",
        Refusal::InUse => "is in use: delete it first",
    };
    WorldError::WrongState { name: name.to_owned(), problem }
}

fn invalid(what: &'static str, value: &str, rule: &str) -> WorldError {
    WorldError::Invalid { what, value: value.to_owned(), rule: rule.to_owned() }
}

/// The current Unix time in seconds.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
