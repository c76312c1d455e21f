//! The Kubernetes API: reads classes, pods and statuses; writes statuses, events and Secrets.
//!
//! Independent of volumes and of Azure; the home of `kube` and `k8s-openapi`. Caches are filled by
//! `watch`; `Reports` writes about volumes.
//!
//! # Guarantees
//! Every request has a deadline. Only the lookup of its class can fail a publish; statuses and
//! events are written in the background, in bounded memory, with retries where they can help.

mod class_object;
mod class_watch;
mod classes;
mod client;
mod error;
mod event_limits;
mod events;
mod managed_fields;
mod names;
mod objects;
mod pod_object;
mod pod_status;
mod pods;
mod reports;
mod resources;
mod secret_object;
mod secrets;
mod startup_taint;
mod status_writer;
mod statuses;
mod watch;

#[cfg(test)]
mod tests;

pub use classes::ClassCache;
pub use client::{Connection, Credentials, connect};
pub use error::{ClassError, ConnectError, GetError, SecretError};
pub use managed_fields::{KeyedField, ManagedFields, Ownership, SecretManager};
pub use pods::{PodKey, Pods};
pub use reports::{Node, Reports};
#[cfg(test)]
pub(crate) use secret_object::read as read_secret;
pub use secret_object::{SecretVersion, StoredSecret};
pub use secrets::{SecretContent, SecretRef, Secrets};
pub use startup_taint::remove_startup_taint;
pub use statuses::{PodStatus, StatusKey, Statuses};
