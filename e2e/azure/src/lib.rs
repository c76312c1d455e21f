//! Entra ID, IMDS and Azure Key Vault on loopback: real HTTPS, real status codes, faults on demand.
//!
//! The emulator is a second reading of the protocols and shares no code with the product. It never
//! connects to Azure, and its state ends with the process. Start with [`Emulator`], set it up
//! through [`Azure`], and read back counters and journal.
//!
//! # Flow
//!
//! `server` accepts connections, `request` turns each request into a value, `dispatch` records it
//! and applies faults, and `services` has `entra`, `imds` or `keyvault` respond from the one
//! `EmulatorState`.

mod azure;
mod emulator;
mod seed;
mod token_proxy;

mod admin;
mod dispatch;
mod entra;
mod fault_injection;
mod imds;
mod keyvault;
mod request;
mod response;
mod server;
mod services;
mod tls;

mod assertion;
mod clock;
mod clouds;
mod content;
mod directory;
mod error;
mod fault;
mod form;
mod issuer;
mod key_set;
mod limits;
mod machine;
mod object;
mod permission;
mod random;
mod record;
mod state;
mod vault;

pub use azure::Azure;
pub use content::{CertificateMaterial, Jwk, ObjectKind};
pub use emulator::{Emulator, Options, StartError};
pub use error::SetupError;
pub use fault::{Action, Fault};
pub use issuer::Issuer;
pub use object::ObjectAttributes;
pub use permission::{Access, Permission};
pub use record::{Counters, JournalEntry, Kind};
pub use seed::{Seed, SeedClient, SeedGrant, SeedSecret, SeedTenant, SeedVault};
pub use tls::TlsError;
pub use token_proxy::{TokenProxy, TokenProxyOptions};
