//! Set-up of vaults and of the permissions in them.

use super::handle::{Azure, must};
use crate::content::ObjectKind;
use crate::permission::{Access, Permission};

impl Azure {
    /// Adds a vault with the host `name.suffix`; an existing one keeps its objects and grants.
    ///
    /// # Panics
    /// If the name is not valid, the suffix belongs to no cloud, or the tenant was not added.
    #[track_caller]
    pub fn add_vault(&self, name: &str, suffix: &str, tenant: &str) {
        must(self.shared.add_vault(name, suffix, tenant));
    }

    /// Sets whether refusals name access policies (the default) or role assignments.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn set_access(&self, vault: &str, access: Access) {
        must(self.change_vault(vault, |vault| {
            vault.access = access;
            Ok(())
        }));
    }

    /// Sets the size of list pages, 25 by default.
    ///
    /// # Panics
    /// If the vault was not added or the size is not from 1 to 25.
    #[track_caller]
    pub fn set_page_size(&self, vault: &str, size: usize) {
        must(self.change_vault(vault, |vault| vault.set_page_size(size)));
    }

    /// Adds permissions of a client on all kinds of objects in a vault.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn grant(&self, vault: &str, client_id: &str, permissions: &[Permission]) {
        must(self.change_vault(vault, |vault| {
            vault.grant(client_id, permissions);
            Ok(())
        }));
    }

    /// Adds permissions of a client on one kind of objects in a vault.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn grant_on(&self, vault: &str, client_id: &str, kind: ObjectKind, permissions: &[Permission]) {
        must(self.change_vault(vault, |vault| {
            vault.grant_on(client_id, kind, permissions);
            Ok(())
        }));
    }

    /// Removes permissions of a client on all kinds of objects.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn revoke_grant(&self, vault: &str, client_id: &str, permissions: &[Permission]) {
        must(self.change_vault(vault, |vault| {
            vault.revoke(client_id, permissions);
            Ok(())
        }));
    }

    /// Removes permissions of a client on one kind of objects.
    ///
    /// # Panics
    /// If the vault was not added.
    #[track_caller]
    pub fn revoke_grant_on(&self, vault: &str, client_id: &str, kind: ObjectKind, permissions: &[Permission]) {
        must(self.change_vault(vault, |vault| {
            vault.revoke_on(client_id, kind, permissions);
            Ok(())
        }));
    }
}
