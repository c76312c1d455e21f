//! The Kubernetes API: classes from it, statuses and events to it.
//!
//! Knows nothing of volumes or Azure, and is the home of `kube` and `k8s-openapi`. `client` connects; `classes` gives
//! control to `crate::classes`; `Reports` is what `volume` tells how publishes ended.
//!
//! # Guarantees
//! Every request has a deadline. Nothing here ever fails a publish but the look-up of its class; what is written to the
//! cluster is written in the background, in bounded memory, and tried again where that can help.

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

/// The group of the objects we share with upstream.
const GROUP: &str = "secrets-store.csi.x-k8s.io";

fn resource(kind: &str, plural: &str) -> kube::core::ApiResource {
    kube::core::ApiResource {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GROUP}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}
