//! gRPC in: the CSI services and the kubelet's plugin registration, on private Unix sockets.
//!
//! The only place that names tonic or prost. A handler parses, makes one call into `volume`, and maps the answer; start
//! reading in `node`.

/// The generated messages and services; `tests/it/proto.rs` makes them anew and compares.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_enum_match_arm)] // Generated code.
pub mod proto {
    /// `csi.v1`
    pub mod csi {
        include!("proto/csi.v1.rs");
    }
    /// `pluginregistration`
    pub mod registration {
        include!("proto/pluginregistration.rs");
    }
}

mod identity;
mod node;
pub mod probe;
pub mod registration;
mod request;
mod server;
mod status;

#[cfg(test)]
mod tests;

pub use node::Node;
pub use server::{Driver, serve};
pub use status::code;
