//! What drives the built binary from outside: a private network, a kubelet, a driver process, and a provider beside it.
//!
//! Used by the integration tests and the demo; nothing here is part of the product, and the product is only reached
//! through its sockets. Start reading in `kubelet`.

pub mod driver;
pub mod kubelet;
pub mod reference;
pub mod sandbox;
