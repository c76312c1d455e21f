//! The messages and services of four protocols, generated from the `.proto` files beside: the product serves and calls them, and
//! so do the programs that test it.
//!
//! No code of ours is in here; `tests/it/proto.rs` makes the files anew and compares. A message with a secret has no `Debug`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    reason = "prost and tonic write the code; what it looks like is theirs to decide, and no line is written by hand"
)]

/// `csi.v1`: what the kubelet asks a volume driver for.
pub mod csi {
    include!("csi.v1.rs");
}

/// `pluginregistration`: how the kubelet learns of a driver.
pub mod registration {
    include!("pluginregistration.rs");
}

/// `v1alpha1`: what a driver asks a provider for.
pub mod provider {
    include!("v1alpha1.rs");
}

/// `grpc.health.v1`
pub mod health {
    include!("grpc.health.v1.rs");
}
