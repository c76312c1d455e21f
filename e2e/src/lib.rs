//! What drives the built binary from outside: a private network, a kubelet, a driver process, providers beside it.
//!
//! Used by the integration tests, the demo and the benchmark; nothing here is part of the product, and the product is only reached
//! through its sockets. Start reading in `kubelet`.

pub mod driver;
pub mod kubelet;
pub mod load;
mod process;
pub mod provider;
pub mod reference;
pub mod sandbox;
