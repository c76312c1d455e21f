//! Looking up host names as the system's files say, with errors that can be told apart.
//!
//! Reads /etc/hosts and /etc/resolv.conf itself, and not through the C library, whose `getaddrinfo` keeps a thread while a name
//! server is silent, and hides why a name was not found. Caches nothing. Control goes back to `http`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name as DnsName, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
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

/// The two files, as they were read.
struct Current {
    /// Their fingerprint.
    files: u64,
    names: Names,
}

/// Where names are looked up: in the hosts file, and where it has none, in DNS.
#[derive(Clone)]
struct Names {
    hosts: Arc<Hosts>,
    dns: TokioResolver,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Resolver {
    /// The names of the files as they are now. Reads two small files when they have changed.
    fn current(&self) -> Result<Names, NetError> {
        let files = fingerprint(&FILES.map(PathBuf::from));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.as_ref().filter(|known| known.files == files) {
            return Ok(known.names.clone());
        }
        let names = Names::read()?;
        *current = Some(Current { files, names: names.clone() });
        Ok(names)
    }
}

impl Names {
    fn read() -> Result<Names, NetError> {
        // Where no name server is named, it is this machine's (resolv.conf(5)).
        let (config, mut options) = read_system_conf().unwrap_or_else(|_| {
            let here = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (ResolverConfig::from_parts(None, Vec::new(), vec![here]), ResolverOpts::default())
        });
        options.cache_size = 0;
        options.timeout = TRY;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // A cluster's five would ask for `vault.azure.net.svc.cluster.local` and the like first, each time.
        options.ndots = 1;
        options.use_hosts_file = ResolveHosts::Never;
        let provider = TokioRuntimeProvider::default();
        let dns = TokioResolver::builder_with_config(config, provider).with_options(options).build()?;
        Ok(Names { hosts: Arc::new(Hosts::from_system().unwrap_or_default()), dns })
    }

    /// The addresses that the hosts file has; a name that stands there is not asked for elsewhere, of neither family.
    fn in_hosts(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = DnsName::from_utf8(name) else {
            return Vec::new();
        };
        let found = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|family| self.hosts.lookup_static_host(&Query::query(name.clone(), family)));
        found
            .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NameFault> {
        let addresses = self.in_hosts(name);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let found = timeout(PATIENCE, self.dns.lookup_ip(name)).await.map_err(|_| NameFault::Lookup)?;
        Ok(found.map_err(|error| fault(&error))?.iter().collect())
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.current();
        Box::pin(async move {
            let names = names.map_err(|error| fault(&error))?;
            let addresses = names.look_up(name.as_str()).await?;
            // Port 0 is replaced by the URL's.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
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
