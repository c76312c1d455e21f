//! What drives the built binary from outside: a private network, a kubelet, a driver process, providers beside it.
//!
//! Used by the integration tests and the demo; nothing here is part of the product, and the product is only reached
//! through its sockets. Start reading in `kubelet`.

pub mod driver;
pub mod kubelet;
mod process;
pub mod provider;
pub mod reference;
pub mod sandbox;
