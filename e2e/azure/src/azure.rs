//! The handle that sets the scene and reads back what happened.
//!
//! Every method takes the lock for a moment and returns; none waits for a request.
//! A scene that makes no sense is a mistake in the test, so the methods panic and say what to fix;
//! [`Azure::apply`] is for input from outside and returns the error instead.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Fault;
use crate::record::{Counters, Entry};
use crate::secret::{SecretAttributes, SecretChange};
use crate::seed::Seed;
use crate::world::{Access, Permission, Shared, Vault, World, WorldError, now};

/// Azure, as far as this emulator goes. Cheap to clone; all clones are the same Azure.
#[derive(Debug, Clone)]
pub struct Azure {
    pub(crate) shared: Arc<Shared>,
}

impl Azure {
    pub(crate) fn new(shared: Arc<Shared>) -> Azure {
        Azure { shared }
    }

    /// Applies a seed document; what it names is added or replaced, the rest stays.
    pub fn apply(&self, seed: &Seed) -> Result<(), WorldError> {
        seed.apply(&self.shared)
    }

    /// Adds a tenant.
    pub fn add_tenant(&self, tenant: &str) {
        self.shared.world().directory.add_tenant(tenant);
    }

    /// Adds a client, or gives a known one a new secret that is not expired.
    ///
    /// # Panics
    /// If the tenant was not added.
    #[track_caller]
    pub fn add_client(&self, tenant: &str, client_id: &str, client_secret: &str) {
        must(self.world(|world| world.add_client(tenant, client_id, client_secret).map(|_| ())));
    }

    /// Lets the client's secret expire, so that Entra ID answers AADSTS7000222.
    ///
    /// # Panics
    /// If the client was not added.
    #[track_caller]
    pub fn expire_client_secret(&self, tenant: &str, client_id: &str) {
        must(self.world(|world| {
            world.client(tenant, client_id)?.expired = true;
            Ok(())
        }));
    }

    /// Sets how long new tokens of a tenant live, or of one client in it.
    ///
    /// # Panics
    /// If the tenant or the client was not added.
    #[track_caller]
    pub fn set_token_lifetime(&self, tenant: &str, client_id: Option<&str>, lifetime: Duration) {
        must(self.world(|world| {
            match client_id {
                Some(client_id) => {
                    world.client(tenant, client_id)?.token_lifetime = Some(lifetime);
                }
                None => world.tenant(tenant)?.token_lifetime = Some(lifetime),
            }
            Ok(())
        }));
    }

    /// Adds a vault; it answers as `name.suffix`. A known one keeps its secrets and grants.
    ///
    /// # Panics
    /// If the name is not one, the suffix belongs to no cloud, or the tenant was not added.
    #[track_caller]
    pub fn add_vault(&self, name: &str, suffix: &str, tenant: &str) {
        must(self.shared.add_vault(name, suffix, tenant));
    }

    /// Chooses whether refusals speak of access policies (the default) or of role assignments.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn set_access(&self, vault: &str, access: Access) {
        must(self.vault(vault, |vault| {
            vault.access = access;
            Ok(())
        }));
    }

    /// Makes list pages smaller than the usual 25.
    ///
    /// # Panics
    /// If the vault was not added or the size is not from 1 to 25.
    #[track_caller]
    pub fn set_page_size(&self, vault: &str, size: usize) {
        must(self.vault(vault, |vault| vault.set_page_size(size)));
    }

    /// Lets a client do something in a vault, beside what it may do already.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn grant(&self, vault: &str, client_id: &str, permissions: &[Permission]) {
        must(self.vault(vault, |vault| {
            vault.grant(client_id, permissions);
            Ok(())
        }));
    }

    /// Takes permissions away.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn revoke_grant(&self, vault: &str, client_id: &str, permissions: &[Permission]) {
        must(self.vault(vault, |vault| {
            vault.revoke(client_id, permissions);
            Ok(())
        }));
    }

    /// Sets a secret and returns the new version.
    ///
    /// # Panics
    /// If the vault was not added, the name or value is not valid, or the secret is deleted.
    #[track_caller]
    pub fn set_secret(&self, vault: &str, name: &str, value: &str) -> String {
        let attributes = SecretAttributes::default();
        must(self.vault(vault, |vault| vault.put_secret(name, None, value, attributes, now())))
    }

    /// Sets a secret under a version of one's choice, 32 lower-case hexadecimal digits.
    ///
    /// # Panics
    /// As [`Azure::set_secret`], and if the version is not valid.
    #[track_caller]
    pub fn set_secret_version(
        &self,
        vault: &str,
        name: &str,
        version: &str,
        value: &str,
        attributes: SecretAttributes,
    ) {
        let version = Some(version);
        must(self.vault(vault, |vault| vault.put_secret(name, version, value, attributes, now())));
    }

    /// Disables a version, so that reading it is forbidden.
    ///
    /// # Panics
    /// If the vault or the version is not there.
    #[track_caller]
    pub fn disable_secret(&self, vault: &str, name: &str, version: &str) {
        self.set_enabled(vault, name, version, false);
    }

    /// Enables a version.
    ///
    /// # Panics
    /// If the vault or the version is not there.
    #[track_caller]
    pub fn enable_secret(&self, vault: &str, name: &str, version: &str) {
        self.set_enabled(vault, name, version, true);
    }

    /// Deletes a secret with all its versions; it stays recoverable.
    ///
    /// # Panics
    /// If the vault or the secret is not there.
    #[track_caller]
    pub fn delete_secret(&self, vault: &str, name: &str) {
        must(self.vault(vault, |vault| vault.delete_secret(name, now())));
    }

    /// Removes a deleted secret for good.
    ///
    /// # Panics
    /// If the vault is not there or has no such deleted secret.
    #[track_caller]
    pub fn purge_secret(&self, vault: &str, name: &str) {
        must(self.vault(vault, |vault| vault.purge_secret(name)));
    }

    /// Adds a fault rule behind those already there.
    ///
    /// # Panics
    /// If the fault's status is not one of HTTP's.
    #[track_caller]
    pub fn add_fault(&self, fault: Fault) {
        must(self.world(|world| world.add_fault(fault)));
    }

    /// Removes the fault rules that name this vault or tenant.
    pub fn clear_faults(&self, vault_or_tenant: &str) {
        self.shared.world().faults.clear(Some(vault_or_tenant));
    }

    /// Removes all fault rules.
    pub fn clear_all_faults(&self) {
        self.shared.world().faults.clear(None);
    }

    /// Sets how long every answer takes at least.
    pub fn set_base_latency(&self, latency: Duration) {
        self.shared.world().base_latency = latency;
    }

    /// How many requests of each kind a vault or tenant has seen.
    pub fn counters(&self, vault_or_tenant: &str) -> Counters {
        self.shared.world().recorder.counters(vault_or_tenant)
    }

    /// Sets counters and gauge of a vault or tenant back to zero.
    pub fn reset_counters(&self, vault_or_tenant: &str) {
        let mut world = self.shared.world();
        world.recorder.reset_counters(Some(vault_or_tenant));
    }

    /// The most requests that a vault or tenant had in flight at once since the last reset.
    pub fn max_in_flight(&self, vault_or_tenant: &str) -> usize {
        self.shared.world().recorder.max_in_flight(vault_or_tenant)
    }

    /// The last 10,000 requests, oldest first.
    pub fn journal(&self) -> Vec<Entry> {
        self.shared.world().recorder.journal()
    }

    /// Empties the journal.
    pub fn reset_journal(&self) {
        self.shared.world().recorder.reset_journal();
    }

    /// Revokes the tokens that a client has now; returns how many there were.
    pub fn revoke_tokens(&self, client_id: &str) -> usize {
        self.shared.world().directory.revoke_tokens(client_id)
    }

    /// Lets the tokens that a client has now expire; returns how many there were.
    pub fn expire_tokens(&self, client_id: &str) -> usize {
        let mut world = self.shared.world();
        world.directory.expire_tokens(client_id, now())
    }

    /// Every token handed out, oldest first, for tests that look for leaks.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.shared.world().directory.issued_tokens()
    }

    #[track_caller]
    fn set_enabled(&self, vault: &str, name: &str, version: &str, enabled: bool) {
        let change = SecretChange { enabled: Some(enabled), ..SecretChange::default() };
        must(self.vault(vault, |vault| vault.change_secret(name, Some(version), change, now())));
    }

    /// Changes the world under its lock.
    pub(crate) fn world<T>(&self, change: impl FnOnce(&mut World) -> Result<T, WorldError>) -> Result<T, WorldError> {
        change(&mut self.shared.world())
    }

    /// Changes a vault under the world's lock.
    pub(crate) fn vault<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vault) -> Result<T, WorldError>,
    ) -> Result<T, WorldError> {
        self.world(|world| change(world.vault(name)?))
    }
}

/// A mistake in the scene ends the test here, at the caller's line, and not three requests later.
#[track_caller]
fn must<T>(result: Result<T, impl Display>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("azure-emulator: {error}"),
    }
}
