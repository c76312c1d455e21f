//! Everything the emulator knows, behind one lock: tenants, vaults, faults, records.
//!
//! Every change from outside, be it by the library handle, the admin API or a seed file, is a
//! method here that checks its input and says what to fix. Requests read it through `dispatch`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::assertion::ClientCertificate;
use crate::clouds::Clouds;
use crate::directory::{Client, Directory, Federation, Tenant};
use crate::fault::{self, Fault, FaultBook};
use crate::imds::Machine;
use crate::issuer::Issuer;
use crate::key_set::KeySet;
use crate::keyvault::names;
use crate::object::{Refusal, Store};
use crate::record::Recorder;
use crate::vault::Vault;

/// The page size of Key Vault lists, which is also the largest a client can ask for.
pub(crate) const PAGE_SIZE: usize = 25;

/// So many federated credentials an application can have, as in Entra ID.
const MAX_FEDERATIONS: usize = 20;

/// How long the tokens of managed identities live: a day, less a second.
const MANAGED_LIFETIME: Duration = Duration::from_secs(86_399);

/// What a client may do in a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read objects, and deleted secrets by name.
    Get,
    /// List names and versions.
    List,
    /// Set values, import keys and certificates, change attributes.
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
    /// No such secret, key, certificate or version.
    #[error("there is no object or version {0:?} in this vault: set it first")]
    UnknownSecret(String),
    /// No such issuer of tokens.
    #[error("there is no issuer {0:?}: add it first (add_issuer, PUT /issuers)")]
    UnknownIssuer(String),
    /// The object is deleted, or not deleted, or in use, so that the change makes no sense.
    #[error("object {name:?} {problem}")]
    WrongState {
        /// The object's name.
        name: String,
        /// What stands in the way.
        problem: &'static str,
    },
    /// The system gave no random bytes, so that nothing can be signed.
    #[error("cannot make a key or a signature: the system has no randomness")]
    NoRandomness,
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

/// Everything that can change while the emulator runs.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) directory: Directory,
    pub(crate) issuers: BTreeMap<String, Issuer>,
    /// Keys of issuers that are not ours, by address; they come before one of ours.
    pub(crate) key_sets: BTreeMap<String, KeySet>,
    pub(crate) machine: Machine,
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
            secrets: Store::default(),
            keys: Store::default(),
            certificates: Store::default(),
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

    /// Adds an application without any credential; one that is there stays as it is.
    pub(crate) fn add_application(&mut self, tenant: &str, client: &str) -> Result<&mut Client, WorldError> {
        let clients = &mut self.tenant(tenant)?.clients;
        Ok(clients.entry(client.to_ascii_lowercase()).or_insert_with(Client::new))
    }

    /// Adds a client, or gives one that is there a new secret that is not expired.
    pub(crate) fn add_client(&mut self, tenant: &str, client: &str, secret: &str) -> Result<&mut Client, WorldError> {
        let entry = self.add_application(tenant, client)?;
        entry.secret = Some(secret.to_owned());
        entry.expired = false;
        Ok(entry)
    }

    /// Lets an application sign its own assertions with the key of a certificate.
    pub(crate) fn add_client_certificate(&mut self, tenant: &str, client: &str, der: &[u8]) -> Result<(), WorldError> {
        let certificate = ClientCertificate::read(der)?;
        let known = &mut self.add_application(tenant, client)?.certificates;
        known.retain(|known| known.sha256 != certificate.sha256);
        known.push(certificate);
        Ok(())
    }

    /// Lets an application be spoken for by the tokens of an issuer.
    pub(crate) fn add_federation(
        &mut self,
        tenant: &str,
        client: &str,
        federation: Federation,
    ) -> Result<(), WorldError> {
        let known = &mut self.add_application(tenant, client)?.federations;
        if known.len() >= MAX_FEDERATIONS {
            return Err(invalid("number of federated credentials", &known.len().to_string(), "20 at most"));
        }
        known.push(federation);
        Ok(())
    }

    /// Gives the machine a managed identity; its tokens live a day, as in Azure.
    pub(crate) fn add_managed_identity(&mut self, tenant: &str, client: &str, system: bool) -> Result<(), WorldError> {
        let entry = self.add_application(tenant, client)?;
        entry.token_lifetime = entry.token_lifetime.or(Some(MANAGED_LIFETIME));
        self.machine.add(tenant, client, system);
        Ok(())
    }

    /// The issuer of this address, made on first use.
    pub(crate) fn add_issuer(&mut self, url: &str) -> Result<Issuer, WorldError> {
        if let Some(known) = self.issuers.get(url) {
            return Ok(known.clone());
        }
        let issuer = Issuer::new(url)?;
        self.issuers.insert(url.to_owned(), issuer.clone());
        Ok(issuer)
    }

    /// An issuer that must be there.
    pub(crate) fn issuer(&self, url: &str) -> Result<&Issuer, WorldError> {
        self.issuers.get(url).ok_or_else(|| WorldError::UnknownIssuer(url.to_owned()))
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

/// A refusal of what was given; the value is quoted, so that secrets must not be passed.
pub(crate) fn invalid(what: &'static str, value: &str, rule: &str) -> WorldError {
    WorldError::Invalid { what, value: value.to_owned(), rule: rule.to_owned() }
}

/// The current Unix time in seconds.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
