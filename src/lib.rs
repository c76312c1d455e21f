//! keyvault-csi: Azure Key Vault secrets, keys and certificates as files in Kubernetes pods.
//!
//! `cmd` wires the roles. `node` is the online mode: a CSI node driver. `backend`, `azure` and the
//! modules below them serve every role. A module imports only the areas that its row in
//! `ARCHITECTURE.md` lists, and each outside crate has one home; the crate `tests/tidy` checks
//! both.

pub mod cmd;

pub mod node;

pub mod azure;
pub mod backend;

pub mod classes;
pub mod compute;
pub mod kubernetes;
pub mod secret;
pub mod server;

pub mod queue;

pub mod formats;
pub mod model;
pub mod platform;
