//! What clients may do in a vault, and how a vault decides.
//!
//! Data only: `vault` keeps the grants, and `keyvault::access` checks them.

use serde::{Deserialize, Serialize};

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
    /// Delete objects.
    Delete,
    /// Recover deleted secrets.
    Recover,
    /// Purge deleted secrets.
    Purge,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Permission; 6] = [
        Permission::Get,
        Permission::List,
        Permission::Set,
        Permission::Delete,
        Permission::Recover,
        Permission::Purge,
    ];
}

/// The permission model of a vault; it changes only the text of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Access policies of the vault.
    Policy,
    /// Azure role assignments.
    Rbac,
}
