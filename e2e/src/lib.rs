//! Runs the built binary for tests: in a private network, with a kubelet, and with other providers.
//!
//! The integration tests, the demo and the benchmark use it. Nothing here is part of the product,
//! which is reached through its sockets only. Start reading in `kubelet`.

pub mod driver;
pub mod kubelet;
pub mod load;
mod process;
pub mod prometheus;
pub mod provider;
pub mod reference;
pub mod sandbox;
