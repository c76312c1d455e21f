//! The messages and services of four gRPC protocols, generated from `.proto` files, for the product
//! and the programs that test it.
//!
//! `tests/it/proto.rs` generates the code again and compares. A message with a secret has no `Debug`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    reason = "prost and tonic generate the code"
)]

/// `csi.v1`: the calls of the kubelet to a node plugin.
pub mod csi {
    include!("csi.v1.rs");
}

/// `pluginregistration`: the registration of a driver with the kubelet.
pub mod registration {
    include!("pluginregistration.rs");
}

/// `v1alpha1`: the calls of a driver to a provider.
pub mod provider {
    include!("v1alpha1.rs");
}

/// `grpc.health.v1`
pub mod health {
    include!("grpc.health.v1.rs");
}
