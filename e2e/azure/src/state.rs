//! The state of the emulator, behind one lock: tenants, vaults, faults, records.
//!
//! Every change from outside, by the library's handle, the admin API or a seed file, is a method
//! here or on [`Vault`] that checks its input; the error names the fix.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::assertion::ClientCertificate;
use crate::clouds::Clouds;
use crate::directory::{Client, Directory, Federation, Tenant};
use crate::error::{SetupError, invalid};
use crate::fault::{self, Fault, FaultRules};
use crate::issuer::Issuer;
use crate::key_set::KeySet;
use crate::limits::{self, PAGE_SIZE};
use crate::machine::MachineIdentities;
use crate::object::Store;
use crate::permission::Access;
use crate::record::Recorder;
use crate::vault::Vault;

/// The limit of Entra ID for one application.
const MAX_FEDERATIONS: usize = 20;

/// The lifetime of the tokens of managed identities: a day, less a second.
const MANAGED_LIFETIME: Duration = Duration::from_secs(86_399);

#[derive(Debug, Default)]
pub(crate) struct EmulatorState {
    pub(crate) directory: Directory,
    pub(crate) issuers: BTreeMap<String, Issuer>,
    /// Keys of external issuers, by address; they take precedence over `issuers`.
    pub(crate) key_sets: BTreeMap<String, KeySet>,
    pub(crate) machine: MachineIdentities,
    pub(crate) vaults: BTreeMap<String, Vault>,
    pub(crate) faults: FaultRules,
    pub(crate) recorder: Recorder,
    pub(crate) base_latency: Duration,
}

#[derive(Debug)]
pub(crate) struct SharedState {
    pub(crate) clouds: Clouds,
    state: Mutex<EmulatorState>,
}

impl SharedState {
    pub(crate) fn new(clouds: Clouds, base_latency: Duration) -> SharedState {
        let state = EmulatorState { base_latency, ..EmulatorState::default() };
        SharedState { clouds, state: Mutex::new(state) }
    }

    /// Locks the state. It stays usable after a panic: no change has two steps.
    pub(crate) fn lock(&self) -> MutexGuard<'_, EmulatorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a vault; an existing one keeps its objects and grants.
    pub(crate) fn add_vault(&self, name: &str, suffix: &str, tenant: &str) -> Result<(), SetupError> {
        let name = name.to_ascii_lowercase();
        let suffix = suffix.to_ascii_lowercase();
        if !limits::is_vault_name(&name) {
            let rule = "3 to 24 letters, digits and hyphens, beginning with a letter";
            return Err(invalid("vault name", &name, rule));
        }
        if self.clouds.of_suffix(&suffix).is_none() {
            let known = self.clouds.suffixes().join(", ");
            let rule = format!("known are {known}; a custom one needs --dns-name '*.{suffix}'");
            return Err(invalid("vault suffix", &suffix, &rule));
        }
        let mut state = self.lock();
        if state.directory.tenant(tenant).is_none() {
            return Err(SetupError::UnknownTenant(tenant.to_owned()));
        }
        let vault = state.vaults.entry(name.clone()).or_insert_with(|| Vault {
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

impl EmulatorState {
    /// An existing tenant, or an error.
    pub(crate) fn tenant(&mut self, tenant: &str) -> Result<&mut Tenant, SetupError> {
        let known = self.directory.tenant_mut(tenant);
        known.ok_or_else(|| SetupError::UnknownTenant(tenant.to_owned()))
    }

    /// An existing client, or an error.
    pub(crate) fn client(&mut self, tenant: &str, client: &str) -> Result<&mut Client, SetupError> {
        let known = self.tenant(tenant)?.clients.get_mut(&client.to_ascii_lowercase());
        known.ok_or_else(|| SetupError::UnknownClient { tenant: tenant.to_owned(), client: client.to_owned() })
    }

    /// Adds an application without credentials; an existing one does not change.
    pub(crate) fn add_application(&mut self, tenant: &str, client: &str) -> Result<&mut Client, SetupError> {
        let clients = &mut self.tenant(tenant)?.clients;
        Ok(clients.entry(client.to_ascii_lowercase()).or_insert_with(Client::new))
    }

    /// Adds a client, or gives an existing one a new secret that has not expired.
    pub(crate) fn add_client(&mut self, tenant: &str, client: &str, secret: &str) -> Result<&mut Client, SetupError> {
        let entry = self.add_application(tenant, client)?;
        entry.secret = Some(secret.to_owned());
        entry.expired = false;
        Ok(entry)
    }

    /// Accepts assertions of an application that the key of a certificate signed.
    pub(crate) fn add_client_certificate(&mut self, tenant: &str, client: &str, der: &[u8]) -> Result<(), SetupError> {
        let certificate = ClientCertificate::read(der)?;
        let known = &mut self.add_application(tenant, client)?.certificates;
        known.retain(|known| known.sha256 != certificate.sha256);
        known.push(certificate);
        Ok(())
    }

    /// Adds a federated credential to an application.
    pub(crate) fn add_federation(
        &mut self,
        tenant: &str,
        client: &str,
        federation: Federation,
    ) -> Result<(), SetupError> {
        let known = &mut self.add_application(tenant, client)?.federations;
        if known.len() >= MAX_FEDERATIONS {
            return Err(invalid("number of federated credentials", &known.len().to_string(), "20 at most"));
        }
        known.push(federation);
        Ok(())
    }

    /// Assigns a managed identity to the machine; its tokens live a day, as in Azure.
    pub(crate) fn add_managed_identity(&mut self, tenant: &str, client: &str, system: bool) -> Result<(), SetupError> {
        let entry = self.add_application(tenant, client)?;
        entry.token_lifetime = entry.token_lifetime.or(Some(MANAGED_LIFETIME));
        self.machine.add(tenant, client, system);
        Ok(())
    }

    /// The issuer of this address, created on first use.
    pub(crate) fn add_issuer(&mut self, url: &str) -> Result<Issuer, SetupError> {
        if let Some(known) = self.issuers.get(url) {
            return Ok(known.clone());
        }
        let issuer = Issuer::new(url)?;
        self.issuers.insert(url.to_owned(), issuer.clone());
        Ok(issuer)
    }

    /// An existing issuer, or an error.
    pub(crate) fn issuer(&self, url: &str) -> Result<&Issuer, SetupError> {
        self.issuers.get(url).ok_or_else(|| SetupError::UnknownIssuer(url.to_owned()))
    }

    pub(crate) fn add_fault(&mut self, fault: Fault) -> Result<(), SetupError> {
        let checked = fault::check(&fault);
        checked.map_err(|status| invalid("fault status", &status, "from 200 to 599"))?;
        self.faults.add(fault);
        Ok(())
    }

    /// An existing vault, or an error.
    pub(crate) fn vault(&mut self, name: &str) -> Result<&mut Vault, SetupError> {
        let known = self.vaults.get_mut(&name.to_ascii_lowercase());
        known.ok_or_else(|| SetupError::UnknownVault(name.to_owned()))
    }
}
