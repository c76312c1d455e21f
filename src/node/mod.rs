//! The online mode: volumes in pods, filled from Key Vault and kept fresh.
//!
//! `csi` and `plugin` translate the two gRPC protocols, `volume` publishes and unpublishes,
//! `rotation` refreshes published volumes, `mirror` writes the Secrets that classes of mounted
//! volumes ask for.

pub mod csi;
pub mod mirror;
pub mod plugin;
pub mod rotation;
pub mod volume;
