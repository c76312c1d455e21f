//! Errors of changes to the emulator's state, each with its fix.
//!
//! The texts are for the authors of tests and seed documents.

use thiserror::Error;

use crate::object::StoreError;

/// A change to the emulator's state was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetupError {
    /// No such tenant.
    #[error("there is no tenant {0:?}: add it first (add_tenant, PUT /tenants/{0})")]
    UnknownTenant(String),
    /// No such client in the tenant.
    #[error("there is no client {client:?} in tenant {tenant:?}: add it first (add_client)")]
    UnknownClient {
        /// The tenant.
        tenant: String,
        /// The client.
        client: String,
    },
    /// No such vault.
    #[error("there is no vault {0:?}: add it first (add_vault, PUT /vaults/{0})")]
    UnknownVault(String),
    /// The vault has no such secret, key, certificate or version.
    #[error("there is no object or version {0:?} in this vault: set it first")]
    UnknownSecret(String),
    /// No such issuer of tokens.
    #[error("there is no issuer {0:?}: add it first (add_issuer, PUT /issuers)")]
    UnknownIssuer(String),
    /// The object is deleted, not deleted or in use, and the change needs another state.
    #[error("object {name:?} {problem}")]
    WrongState {
        /// The object's name.
        name: String,
        /// Its state, and the fix.
        problem: &'static str,
    },
    /// The system has no random bytes, so nothing can be signed.
    #[error("cannot make a key or a signature: the system has no randomness")]
    NoRandomness,
    /// A name, version, suffix or page size that Azure does not accept.
    #[error("{what} {value:?} is not valid: {rule}")]
    Invalid {
        /// The kind of value.
        what: &'static str,
        /// The value.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
}

pub(crate) fn store_error(error: StoreError, name: &str) -> SetupError {
    let problem = match error {
        StoreError::Missing => return SetupError::UnknownSecret(name.to_owned()),
        StoreError::NotDeleted => "is not deleted: delete it first",
        StoreError::Deleted => "is deleted: purge or recover it first",
        StoreError::InUse => "is in use: delete it first",
    };
    SetupError::WrongState { name: name.to_owned(), problem }
}

/// The error of a value, which the text quotes: never pass a secret.
pub(crate) fn invalid(what: &'static str, value: &str, rule: &str) -> SetupError {
    SetupError::Invalid { what, value: value.to_owned(), rule: rule.to_owned() }
}
