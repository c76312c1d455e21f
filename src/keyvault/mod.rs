//! Azure over HTTPS: the only place that names an HTTP client or an Azure crate.
//!
//! Gets objects out of vaults and says in plain words why not; knows neither classes nor files, and writes nothing.
//! [`Vaults`] is what a process holds, [`Vault`] what a fetch opens; the caller is `provider`.
//!
//! # Flow
//! `vaults` opens a `vault`; the first call makes a `session`: `challenge` learns what the vault wants, and the Azure SDK fetches a
//! token. Every request of the SDK goes through `transport`, which confines it, and `http`, which bounds it. `retry` decides what
//! is tried again, `error` and `advice` say what was wrong.
//!
//! # Guarantees
//! A token leaves for its vault only, a client secret for its authority only; no redirect is followed. A body, a secret or a token
//! never enters an error or a log. No call outlasts the vault's deadline, and the last real cause is in its error.

mod advice;
mod answer;
mod challenge;
mod cloud;
mod error;
mod http;
mod names;
mod resolve;
mod retry;
mod session;
mod transport;
mod vault;
mod vaults;

#[cfg(test)]
mod tests;

pub use cloud::{Cloud, CloudError};
pub use error::{Error, Link, Refusal, Service, Stop};
pub use names::{NameError, ObjectName, ObjectVersionId, TenantId, VaultName};
pub use session::Credential;
pub use vault::{Vault, VaultSecret};
pub use vaults::{Options, Vaults};
