//! Azure over HTTPS: the only place that names an HTTP client or an Azure crate.
//!
//! Gets objects out of vaults and says in plain words why not; knows no classes and writes nothing. Of files it reads
//! those that describe custom clouds, which say where tokens go.
//! [`Vaults`] is what a process holds, [`Vault`] what a fetch opens; the caller is `provider`.
//!
//! # Flow
//! `vaults` opens a `vault` for an `identity`; each call asks its `session` for a token: `challenge` learns what the
//! vault wants, and `tokens` has a token of that kind, or one is fetched: by the Azure SDK, where need be with an
//! `assertion` or by the token proxy of a `binding`, or from `imds`. Secrets are got by the SDK, `objects` reads the
//! rest by hand; `recent` has what was fetched a moment ago, and `flight` sees to it that one request is made for all
//! who want the same. Every request goes through `transport`, which confines it, the vault's `budget`, which keeps its
//! `pace`, and `http`, which bounds it and trusts what `trust` has read. Each of these fetches has one of the `places`,
//! of which a namespace has a share; `connect` sees every connection begin. `retry` decides what is tried again,
//! `error` and `advice` say what was wrong.
//!
//! # Guarantees
//! A token leaves for its vault only, a client secret or an assertion for its authority only; no redirect is followed.
//! A body, a secret or a token never enters an error or a log. No call outlasts the vault's deadline, and the last real
//! cause is in its error. No identity uses another's token, and none is looked up with a token that does not name it:
//! `service_account` reads it first. No namespace has more than its share of the connections.

mod advice;
mod answer;
mod assertion;
mod binding;
mod budget;
mod challenge;
mod cloud;
mod cloud_files;
mod connect;
mod error;
mod flight;
mod http;
mod identity;
mod imds;
mod key_pair;
mod names;
mod objects;
mod pace;
mod places;
mod rank;
mod recent;
mod resolve;
mod retry;
mod service_account;
mod session;
mod tokens;
mod transport;
mod trust;
mod vault;
mod vaults;

#[cfg(test)]
mod tests;

pub use binding::{TokenProxyError, TokenProxyOptions};
pub use challenge::ObjectType;
pub use cloud::{Cloud, CloudError};
pub use cloud_files::{CLOUD_FILE_VARIABLE, CloudFileError, CloudFileName, CloudFiles};
pub use error::{Error, Link, Refusal, Service, Stop};
pub use identity::{Credential, Identity};
pub use key_pair::{CertificateFacts, KeyFault, KeyPair, LoginCertificate};
pub use names::{NameError, ObjectName, ObjectVersionId, TenantId, VaultName};
pub use objects::{VaultCertificate, VaultKey, VersionInfo};
pub use pace::Rate;
pub use rank::Purpose;
pub use service_account::{ServiceAccountToken, TokenFault};
pub use vault::{Vault, VaultSecret};
pub use vaults::{Connections, Errand, Options, Vaults};
