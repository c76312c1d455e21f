//! Azure over HTTPS: the only module that names an HTTP client or an Azure crate.
//!
//! Gets objects from vaults, and explains errors to the pod's owner. Knows no classes and writes
//! nothing; the only files that it reads describe custom clouds, CA certificates and DNS. A process
//! has one [`Vaults`], a fetch one [`Vault`].
//!
//! # Flow
//! `vaults` opens a `vault` for a credential, whose [`Identity`] is the key of all caches. For each
//! object, `session` gets the scope from the vault's `challenge` (parsed by `www_authenticate`) and
//! a token from `tokens`; the Azure SDK requests it, with an `assertion` or through the
//! `token_proxy` if need be, or `imds`. A 401 may name `claims`. The SDK gets secrets; `objects`
//! reads the other responses. `object_cache` has the objects of the last moments, and
//! `single_flight` shares a running fetch. Each fetch holds one of the `fetch_permits`. Each
//! request passes `transport`, which confines it, the `vault_queue`, which keeps the `rate_limit`
//! and the `circuit_breaker`, and `http`, with a `reloading_client` for the `ca_bundle`. `retry`
//! decides which errors are retried.
//!
//! # Guarantees
//! A token is sent only to its vault, a client secret or an assertion only to its authority; no
//! redirect is followed. A body, a secret or a token is never in an error or a log. No call
//! outlasts the vault's deadline, and its error has the last real cause. No identity uses a token
//! of another one, and no cache is read for a service account token before `service_account` has
//! checked its subject. No namespace has more than its share of the connections.

mod administrator_file;
mod assertion;
mod ca_bundle;
mod challenge;
mod circuit_breaker;
mod claims;
mod client;
mod cloud;
mod cloud_files;
mod connection_fault;
mod connector;
mod endpoint;
mod error;
mod error_codes;
mod error_text;
mod fetch_permits;
mod http;
mod identity;
mod imds;
mod key_pair;
mod names;
mod object_cache;
mod object_type;
mod objects;
mod priority;
mod rate_limit;
mod refusal;
mod reloading_client;
mod resolve;
mod response;
mod retry;
mod service_account;
mod session;
mod single_flight;
mod token_proxy;
mod tokens;
mod transport;
mod vault;
mod vault_queue;
mod vaults;
mod www_authenticate;

#[cfg(test)]
mod tests;

pub use administrator_file::{CloudFileName, CloudFiles};
pub use cloud::{Cloud, CloudError, CloudResource};
pub use cloud_files::{CLOUD_FILE_VARIABLE, CloudFileError};
pub use connection_fault::ConnectionFault;
pub use endpoint::Service;
pub use error::{Error, StopReason};
pub use identity::{Credential, Identity};
pub use key_pair::{CertificateFacts, KeyFault, KeyPair, LoginCertificate};
pub use names::{NameError, ObjectName, ObjectVersionId, TenantId, VaultName};
pub use object_type::ObjectType;
pub use objects::{VaultCertificate, VaultKey, VaultSecret, VersionInfo};
pub use rate_limit::Rate;
pub use refusal::Refusal;
pub use service_account::{ServiceAccountToken, TokenFault};
pub use token_proxy::{TokenProxyError, TokenProxyOptions};
pub use vault::Vault;
pub use vaults::{ConnectionLimits, FetchContext, Options, Vaults};
