//! Looking up host names, with errors that can be told apart.
//!
//! Asks the operating system, as the HTTP client's own resolver does, and caches nothing; it exists because that one's error
//! has no type to look for. Control goes back to `http`.

use std::io;

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

/// The operating system's resolver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 is replaced by the URL's.
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| fault(&error))?;
            let addresses: Addrs = Box::new(addresses.collect::<Vec<_>>().into_iter());
            Ok(addresses)
        })
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
