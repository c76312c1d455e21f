//! External providers: programs on the node that fetch for a `spec.provider`, over the provider
//! protocol v1alpha1 on a Unix socket.
//!
//! Sends the request and interprets the reply (docs/reference/csi-driver.md#provider-protocol);
//! start reading in `fetch`. Writes nothing.
//!
//! # Guarantees
//! Nothing is kept between two calls but the names of discovered providers: each call looks for the
//! socket again, so that one that appears, vanishes or moves is noticed. No secret that was sent
//! enters a text.

mod connect;
mod error;
mod fetch;
mod health;
mod mount_call;
mod redact;
mod reply;
mod request;
mod socket;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::{Error, ProviderFault};
pub use fetch::ExternalFetch;
pub use socket::{ProviderName, directories};

use crate::server::metrics::NodeMetrics;

/// The limits of what is accepted from a provider.
pub mod limits {
    /// The longest error text of a provider, in characters. An event has 1,024.
    pub const MESSAGE: usize = 1024;
    /// The same of `keyvault-csi provider`, which lists all mistakes of a class.
    pub const OWN_MESSAGE: usize = 8 << 10;
    /// How much of a name messages show, in characters.
    pub const SHOWN: usize = 64;
    /// The most bytes of object versions of one reply: the pod status has them, and an API server
    /// accepts about 1.5 MiB.
    pub const VERSIONS: usize = 512 << 10;
    /// The most bytes of object versions that are kept of one volume and sent with its next
    /// request.
    pub const HELD: usize = 64 << 10;
}

/// How providers are found, and what is accepted from them.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directories of sockets, in the order in which they are searched.
    pub directories: Vec<PathBuf>,
    /// The largest reply, in bytes.
    pub largest_reply: usize,
}

/// The external providers. Cheap to clone; all clones share the discovered names.
#[derive(Debug, Clone)]
pub struct External {
    options: Arc<Options>,
    metrics: NodeMetrics,
}

impl External {
    /// Providers with sockets in these directories.
    pub fn new(options: Options, metrics: NodeMetrics) -> External {
        External { options: Arc::new(options), metrics }
    }
}
