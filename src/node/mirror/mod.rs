//! The mirror: writes the Kubernetes Secrets that the classes of mounted volumes ask for.
//!
//! Starts from published volumes and status objects, so it also works without rotation, after a
//! restart, and when it is enabled later. Makes no request to a vault. `controller` decides when a
//! class is reconciled, `reconcile` does it, and `crate::secret` writes the Secrets.
//!
//! # Guarantees
//! Nothing is written if nothing changed, and a quiet node reads the metadata of its Secrets once
//! an interval. At most [`WORKERS`](controller::WORKERS) classes are reconciled at the same time.
//! Secrets are never listed or watched.

mod controller;
mod error;
mod files;
mod reconcile;
mod users;
mod volumes;

#[cfg(test)]
mod tests;

pub use self::controller::{MANAGER, Sources, run};
