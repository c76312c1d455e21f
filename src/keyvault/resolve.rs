//! Looking up host names as the system's files say, with errors that can be told apart.
//!
//! Reads /etc/hosts and /etc/resolv.conf itself, and not through the C library: a static program has no `getaddrinfo` that works
//! in an image without one, and a silent name server would keep a thread. Caches nothing. Control goes back to `http`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;

use crate::platform::fingerprint::fingerprint;

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

/// The files that say where names are looked up.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// How long one name server is waited for, and how long one name in all: shorter than what connecting may take, so that a silent
/// name server is not taken for a firewall.
const TRY: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(4);

/// A resolver that follows the system's files, also when they change. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver {
    current: Arc<Mutex<Option<Current>>>,
}

struct Current {
    /// The fingerprint of the files that it was made of.
    files: u64,
    resolver: TokioResolver,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Resolver {
    /// The resolver of the files as they are now. Reads two small files when they have changed.
    fn current(&self) -> Result<TokioResolver, NetError> {
        let files = fingerprint(&FILES.map(PathBuf::from));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.as_ref().filter(|known| known.files == files) {
            return Ok(known.resolver.clone());
        }
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = TRY;
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        // A cluster's five would ask for `vault.azure.net.svc.cluster.local` and the like first, each time.
        options.ndots = 1;
        let resolver = builder.build()?;
        *current = Some(Current { files, resolver: resolver.clone() });
        Ok(resolver)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.current();
        Box::pin(async move {
            let resolver = resolver.map_err(|error| fault(&error))?;
            let found = timeout(PATIENCE, resolver.lookup_ip(name.as_str())).await.map_err(|_| NameFault::Lookup)?;
            let found = found.map_err(|error| fault(&error))?;
            // Port 0 is replaced by the URL's.
            let addresses: Vec<SocketAddr> = found.iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
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
fn fault(error: &NetError) -> NameFault {
    match error.is_no_records_found() {
        true => NameFault::Unknown,
        false => NameFault::Lookup,
    }
}
