//! DNS lookups as the system's files configure them, with errors that distinguish an unknown name.
//!
//! Reads /etc/hosts and /etc/resolv.conf itself instead of the C library, whose `getaddrinfo`
//! blocks a thread while a name server does not answer, and hides why a lookup failed. Caches
//! nothing.

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

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameFault {
    /// DNS says that the name does not exist, or has no address.
    #[error("the name is not known")]
    Unknown,
    /// The lookup itself failed.
    #[error("the name could not be looked up")]
    Lookup,
}

const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// The timeouts of one name server and of one name: shorter than that of connecting, so that a name
/// server that does not answer is not mistaken for a firewall.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1_500);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);

/// Rereads the system's files when they change. Cheap to clone; all clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver {
    configured: Arc<Mutex<Option<Configured>>>,
}

struct Configured {
    /// The fingerprint of the files.
    fingerprint: u64,
    names: Names,
}

/// The hosts file, and DNS for names that are not in it.
#[derive(Clone)]
struct Names {
    hosts: Arc<Hosts>,
    dns: TokioResolver,
}

impl std::fmt::Debug for Configured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configured").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Reads the two small files if they have changed.
    fn names(&self) -> Result<Names, NetError> {
        let fingerprint = fingerprint(&FILES.map(PathBuf::from));
        let mut configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = configured.as_ref().filter(|known| known.fingerprint == fingerprint) {
            return Ok(known.names.clone());
        }
        let names = Names::read()?;
        *configured = Some(Configured { fingerprint, names: names.clone() });
        Ok(names)
    }
}

impl Names {
    fn read() -> Result<Names, NetError> {
        // Without a name server, the default is the local one (resolv.conf(5)).
        let (config, mut options) = read_system_conf().unwrap_or_else(|_| {
            let here = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (ResolverConfig::from_parts(None, Vec::new(), vec![here]), ResolverOpts::default())
        });
        options.cache_size = 0;
        options.timeout = SERVER_TIMEOUT;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // With a cluster's ndots:5, `vault.azure.net.svc.cluster.local` and the like would be
        // looked up first.
        options.ndots = 1;
        options.use_hosts_file = ResolveHosts::Never;
        let provider = TokioRuntimeProvider::default();
        let dns = TokioResolver::builder_with_config(config, provider).with_options(options).build()?;
        Ok(Names { hosts: Arc::new(Hosts::from_system().unwrap_or_default()), dns })
    }

    /// The addresses in the hosts file, of both families; DNS is not asked for a name that has one.
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
        let found = timeout(LOOKUP_TIMEOUT, self.dns.lookup_ip(name)).await.map_err(|_| NameFault::Lookup)?;
        Ok(found.map_err(|error| fault(&error))?.iter().collect())
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.names();
        Box::pin(async move {
            let names = names.map_err(|error| fault(&error))?;
            let addresses = names.look_up(name.as_str()).await?;
            // Port 0 is replaced by the URL's.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// Resolves each name to one host: the name that TLS verifies need not be the one in DNS.
#[derive(Debug, Clone)]
pub(super) struct FixedResolver {
    pub(super) host: String,
    /// The host's address, if it is known without DNS.
    pub(super) address: Option<SocketAddr>,
    pub(super) resolver: Resolver,
}

impl Resolve for FixedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        match (self.address, self.host.parse()) {
            (Some(address), _) => Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) }),
            (None, Ok(host)) => self.resolver.resolve(host),
            (None, Err(_)) => self.resolver.resolve(name),
        }
    }
}

fn fault(error: &NetError) -> NameFault {
    match error.is_no_records_found() {
        true => NameFault::Unknown,
        false => NameFault::Lookup,
    }
}
