//! The CSI services and the kubelet's plugin registration, on private Unix sockets.
//!
//! A handler parses the request, makes one call into `volume`, and maps the result; start reading
//! in `node`.

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
