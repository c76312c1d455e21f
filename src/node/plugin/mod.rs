//! We as a provider under another driver: the v1alpha1 provider protocol and gRPC health on a Unix socket.
//!
//! Fetches as the node driver does, by the same `provider`, and writes nothing: the driver writes what it is handed. A call is
//! parsed in `request`, answered in `service`; `probe` asks our own socket for a sign of life.

mod probe;
mod request;
mod server;
mod service;

#[cfg(test)]
mod tests;

pub use probe::probe;
pub use server::serve;
pub use service::Provider;
