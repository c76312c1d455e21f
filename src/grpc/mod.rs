//! What all gRPC servers of ours share: connections that kubelets and drivers may open, and how long a call may take.
//!
//! And how a failure's reason travels. Knows no service. The messages of the provider protocol are here, since both of its ends are ours; `csi` and `plugin` serve.

pub(crate) mod authority;
mod channel;
mod connections;
mod deadline;
mod reason;

/// The generated messages and services; `tests/it/proto.rs` makes them anew and compares.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_enum_match_arm)] // Generated code.
pub mod proto {
    /// `v1alpha1`: the provider protocol.
    pub mod provider {
        include!("proto/v1alpha1.rs");
    }
    /// `grpc.health.v1`
    pub mod health {
        include!("proto/grpc.health.v1.rs");
    }
}

pub(crate) use channel::channel;
pub(crate) use connections::connections;
pub(crate) use deadline::deadline;
#[cfg(test)]
pub(crate) use deadline::parse_timeout;
pub use reason::{failed, reason};
