//! Entra ID and Azure Key Vault on loopback: real HTTPS, real status codes, faults on demand.
//!
//! It is a second reading of the protocols and shares no code with the product it tests.
//! It never talks to Azure, and it keeps nothing: what it knows dies with the process.
//! Start with [`Emulator`], set the scene through [`Azure`], and read back counters and journal.
//!
//! # Flow
//!
//! `server` accepts TLS connections, `call` turns a request into a value, `dispatch` records it
//! and applies faults, `entra` or `keyvault` answers it from the one `World`.

mod azure;
mod emulator;
mod seed;

mod admin;
mod answer;
mod call;
mod dispatch;
mod entra;
mod keyvault;
mod sabotage;
mod server;
mod tls;

mod clouds;
mod directory;
mod fault;
mod random;
mod record;
mod secret;
mod world;

pub use azure::Azure;
pub use emulator::{Emulator, Options, StartError};
pub use fault::{Action, Fault};
pub use record::{Counters, Entry, Kind};
pub use secret::SecretAttributes;
pub use seed::{Seed, SeedClient, SeedGrant, SeedSecret, SeedTenant, SeedVault};
pub use tls::TlsError;
pub use world::{Access, Permission, WorldError};
