//! Entra ID, IMDS and Azure Key Vault on loopback: real HTTPS, real status codes, faults on demand.
//!
//! It is a second reading of the protocols and shares no code with the product it tests.
//! It never talks to Azure, and it keeps nothing: what it knows dies with the process.
//! Start with [`Emulator`], set the scene through [`Azure`], and read back counters and journal.
//!
//! # Flow
//!
//! `server` accepts connections, `call` turns a request into a value, `dispatch` records it
//! and applies faults, `entra`, `imds` or `keyvault` answers it from the one `World`.

mod azure;
mod emulator;
mod proxy;
mod seed;

mod admin;
mod answer;
mod call;
mod dispatch;
mod entra;
mod imds;
mod keyvault;
mod sabotage;
mod server;
mod tls;

mod assertion;
mod clouds;
mod content;
mod directory;
mod fault;
mod issuer;
mod key_set;
mod object;
mod random;
mod record;
mod vault;
mod world;

pub use azure::Azure;
pub use content::{CertificateMaterial, Jwk, ObjectKind};
pub use emulator::{Emulator, Options, StartError};
pub use fault::{Action, Fault};
pub use issuer::Issuer;
pub use object::{ObjectAttributes, SecretAttributes};
pub use proxy::{TokenProxy, TokenProxyOptions};
pub use record::{Counters, Entry, Kind};
pub use seed::{Seed, SeedClient, SeedGrant, SeedSecret, SeedTenant, SeedVault};
pub use tls::TlsError;
pub use world::{Access, Permission, WorldError};
