//! The handle that sets the scene and reads back what happened.
//!
//! Who there is stands in `identities`, what is in the vaults in `objects`.
//! Every method takes the lock for a moment and returns; none waits for a request.
//! A scene that makes no sense is a mistake in the test, so the methods panic and say what to fix;
//! [`Azure::apply`] is for input from outside and returns the error instead.

mod identities;
mod objects;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::content::ObjectKind;
use crate::fault::Fault;
use crate::record::{Counters, Entry};
use crate::seed::Seed;
use crate::vault::Vault;
use crate::world::{Access, Permission, Shared, World, WorldError};

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

    /// Lets a client do something with all kinds of objects in a vault, beside what it may do already.
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

    /// Lets a client do something with one kind of objects in a vault, beside what it may do already.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn grant_on(&self, vault: &str, client_id: &str, kind: ObjectKind, permissions: &[Permission]) {
        must(self.vault(vault, |vault| {
            vault.grant_on(client_id, kind, permissions);
            Ok(())
        }));
    }

    /// Takes permissions on all kinds of objects away.
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

    /// Takes permissions on one kind of objects away.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn revoke_grant_on(&self, vault: &str, client_id: &str, kind: ObjectKind, permissions: &[Permission]) {
        must(self.vault(vault, |vault| {
            vault.revoke_on(client_id, kind, permissions);
            Ok(())
        }));
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
pub(super) fn must<T>(result: Result<T, impl Display>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("azure-emulator: {error}"),
    }
}
