//! Looking up host names, with errors that can be told apart.
//!
//! Asks the operating system, as the HTTP client's own resolver does, and caches nothing; it exists because that one's error
//! has no type to look for. Control goes back to `http`.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why a name gave no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameFault {
    /// DNS says that the name does not exist, or has no address.
    #[error("the name is not known")]
    Unknown,
    /// The lookup itself failed.
    #[error("the name could not be looked up")]
    Lookup,
}

/// How many names are looked up at once.
///
/// A lookup keeps a thread until the system gives it up, also when nobody waits for it any more; with a name server that
/// is silent, lookups must not take all the threads that mounting needs.
const LOOKUPS: usize = 8;

/// The operating system's resolver.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    lookups: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver { lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            // The permit goes with the thread, not with who waits for it.
            let permit = lookups.acquire_owned().await?;
            let looked_up = tokio::task::spawn_blocking(move || {
                let _held = permit;
                // Port 0 is replaced by the URL's.
                (name.as_str(), 0).to_socket_addrs()
            });
            let addresses: Addrs = Box::new(looked_up.await?.map_err(|error| fault(&error))?);
            Ok(addresses)
        })
    }
}

/// Looks up one host, whatever name is asked for: the name that TLS checks need not be the one in DNS.
#[derive(Debug, Clone)]
pub(super) struct Alias {
    /// The host.
    pub(super) real: String,
    /// Its address, if that is known without DNS.
    pub(super) address: Option<SocketAddr>,
    pub(super) resolver: Resolver,
}

impl Resolve for Alias {
    fn resolve(&self, name: Name) -> Resolving {
        match (self.address, self.real.parse()) {
            (Some(address), _) => Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) }),
            (None, Ok(real)) => self.resolver.resolve(real),
            (None, Err(_)) => self.resolver.resolve(name),
        }
    }
}

/// Tells an unknown name from a failed lookup.
///
/// The standard library keeps `getaddrinfo`'s code to itself, so that only its text is left: glibc's, musl's and Windows'.
/// An unknown text counts as a failed lookup, which costs some tries and nothing else.
pub(super) fn fault(error: &io::Error) -> NameFault {
    const UNKNOWN: [&str; 4] =
        ["Name or service not known", "No address associated with", "Name does not resolve", "No such host is known"];
    let text = error.to_string();
    match UNKNOWN.iter().any(|unknown| text.contains(unknown)) {
        true => NameFault::Unknown,
        false => NameFault::Lookup,
    }
}
