//! The Azure provider under another driver: the v1alpha1 provider protocol and gRPC health on a
//! Unix socket.
//!
//! Fetches as the node driver does, and writes nothing: the driver writes the files of the reply.

mod probe;
mod request;
mod server;
mod service;

#[cfg(test)]
mod tests;

pub use probe::probe;
pub use server::serve;
pub use service::ProviderService;
