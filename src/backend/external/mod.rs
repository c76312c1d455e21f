//! Other providers: programs beside ours that fetch for `spec.provider`, over the provider protocol v1alpha1 on a Unix socket.
//!
//! Asks and interprets the answer (docs/reference/csi-driver.md#provider-protocol); what is
//! written, and when, is for `volume`. `fetch` is the place to start reading; requests, replies,
//! names and what a provider says are handled in pure files of their own.
//!
//! # Guarantees
//! Nothing is kept between two calls but the names of providers that were met: each call looks for the socket anew, so that
//! one that appears, vanishes or moves is noticed. What was sent as a secret enters no text.

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

pub use error::{Error, Fault};
pub use fetch::ExternalFetch;
pub use socket::{ProviderName, directories};

use crate::server::metrics::Metrics;

/// The limits of what is taken from a provider.
pub mod limits {
    /// How much of a provider's own text is told, in characters. An event holds 1,024.
    pub const SAID: usize = 1024;
    /// The same of a provider that is ours, which lists all mistakes of a class.
    pub const SAID_BY_OURS: usize = 8 << 10;
    /// How much of a name is shown, in characters.
    pub const SHOWN: usize = 64;
    /// The most bytes of object versions of one reply: the status object has them, and an API server takes about 1.5 MiB.
    pub const VERSIONS: usize = 512 << 10;
    /// The most bytes of object versions that are kept of one volume, to be sent with its next request.
    pub const HELD: usize = 64 << 10;
}

/// How providers are found and what is taken from them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where sockets are looked for, in this order.
    pub directories: Vec<PathBuf>,
    /// The largest reply, in bytes.
    pub largest_reply: usize,
}

/// The providers beside us. Cheap to clone; all clones share the names that were met.
#[derive(Debug, Clone)]
pub struct External {
    options: Arc<Options>,
    metrics: Metrics,
}

impl External {
    /// Providers with sockets in these directories.
    pub fn new(options: Options, metrics: Metrics) -> External {
        External { options: Arc::new(options), metrics }
    }
}
