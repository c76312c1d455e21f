//! The process's state for Azure: HTTP clients, queues, permits, and what it caches of vaults and
//! identities.
//!
//! Opens vaults without a request; keeps no client secret and no key.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use azure_core::time::OffsetDateTime;
use tokio::time::Instant;

use super::assertion::AssertionCache;
use super::challenge::ChallengeCache;
use super::client::{self, build, is_proxied};
use super::cloud::Cloud;
use super::error::Error;
use super::fetch_permits::FetchPermits;
use super::http::Http;
use super::identity::Credential;
use super::imds::Imds;
use super::names::{TenantId, VaultName};
use super::object_cache::ObjectCache;
use super::priority::Priority;
use super::rate_limit::Rate;
use super::reloading_client::ReloadingClient;
use super::retry::RetryLimits;
use super::session::Session;
use super::token_proxy::{TokenProxy, TokenProxyOptions};
use super::tokens::TokenCache;
use super::vault::Vault;
use super::vault_queue::VaultQueues;
use crate::compute::Compute;
use crate::model::Purpose;
use crate::server::metrics::FetchMetrics;

/// The options of a process.
#[derive(Debug, Clone)]
pub struct Options {
    /// The User-Agent header of all requests; printable ASCII.
    pub user_agent: String,
    /// The address of the token proxy of AKS identity bindings.
    pub token_proxy: TokenProxyOptions,
    /// How long an object is shared with other first publishes of the same identity; zero shares
    /// nothing.
    pub freshness: Duration,
    /// The rate limit of each vault.
    pub rate: Rate,
    /// The limits of connections.
    pub connections: ConnectionLimits,
    /// Counts the requests.
    pub metrics: FetchMetrics,
    /// Reads the keys of certificates.
    pub compute: Compute,
}

/// How many connections to Azure there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Concurrent fetches of objects, tokens and challenges. A namespace may have half of them.
    pub fetches: usize,
    /// Idle connections; above, all idle ones are closed.
    pub idle: usize,
}

/// The pod and the purpose for which a vault is opened.
#[derive(Debug, Clone, Copy)]
pub struct FetchContext<'a> {
    /// The namespace of the pod.
    pub namespace: &'a str,
    /// What the fetch is for.
    pub purpose: Purpose,
    /// The deadline of the fetch.
    pub deadline: Instant,
}

/// Opens vaults. Created once per process and cheap to clone; all clones share one pool of
/// connections.
#[derive(Clone)]
pub struct Vaults {
    http: Http,
    imds: Imds,
    token_proxy: TokenProxy,
    challenges: ChallengeCache,
    caches: IdentityCaches,
    queues: VaultQueues,
    permits: FetchPermits,
    metrics: FetchMetrics,
    compute: Compute,
    limits: RetryLimits,
}

/// What fetches of one identity share.
#[derive(Clone)]
struct IdentityCaches {
    tokens: TokenCache,
    assertions: AssertionCache,
    objects: ObjectCache,
}

impl IdentityCaches {
    fn new(freshness: Duration) -> IdentityCaches {
        IdentityCaches {
            tokens: TokenCache::default(),
            assertions: AssertionCache::default(),
            objects: ObjectCache::new(freshness),
        }
    }
}

impl Vaults {
    /// Builds the HTTPS client: TLS 1.2 or newer, the system's CA certificates or those of
    /// SSL_CERT_FILE and SSL_CERT_DIR, the proxy of HTTPS_PROXY and NO_PROXY. Variables are read
    /// once, certificates when they change.
    ///
    /// Makes rustls use ring, unless the process has chosen another provider before.
    ///
    /// # Errors
    /// [`Error::Client`], if there are no CA certificates or the user agent is not printable.
    pub fn new(options: Options) -> Result<Vaults, Error> {
        let (agent, timeout) = (options.user_agent.clone(), RetryLimits::PRODUCT.request_timeout);
        let address = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80));
        let imds = Imds { http: Http::direct(client::imds_builder(&agent), timeout)?, address };
        let build = move |certificates| build(client::builder(&agent).tls_certs_only(certificates));
        let client = ReloadingClient::new(Box::new(build), options.connections.idle)?;
        Vaults::with_clients(Http::reloading(client, timeout, is_proxied()), imds, RetryLimits::PRODUCT, options)
    }

    /// With the caller's clients and limits, for tests.
    pub(super) fn with_clients(http: Http, imds: Imds, limits: RetryLimits, options: Options) -> Result<Vaults, Error> {
        Ok(Vaults {
            http,
            imds,
            token_proxy: TokenProxy::new(options.token_proxy, &options.user_agent, limits.request_timeout),
            challenges: ChallengeCache::default(),
            caches: IdentityCaches::new(options.freshness),
            queues: VaultQueues::new(options.rate, options.metrics.clone()),
            permits: FetchPermits::new(options.connections.fetches),
            metrics: options.metrics,
            compute: options.compute,
            limits,
        })
    }

    /// The number of vaults in a backoff: by Retry-After, and by an open circuit.
    pub fn backoff_counts(&self) -> [usize; 2] {
        self.queues.backoff_counts()
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> &ObjectCache {
        &self.caches.objects
    }

    /// Opens a vault for one fetch. The first request is sent for the first object.
    ///
    /// # Errors
    /// [`Error::Credential`], if the credential is incomplete or cannot be used.
    pub fn open(
        &self,
        context: FetchContext<'_>,
        cloud: &Cloud,
        name: &VaultName,
        tenant: &TenantId,
        credential: Credential,
    ) -> Result<Vault, Error> {
        let FetchContext { namespace, purpose, deadline } = context;
        let host = name.host(cloud);
        let caches = self.caches(&credential);
        let session = Session {
            http: self.http.clone(),
            imds: self.imds.clone(),
            token_proxy: self.token_proxy.clone(),
            challenges: self.challenges.clone(),
            tokens: caches.tokens,
            assertions: caches.assertions,
            objects: caches.objects,
            queue: self.queues.queue(&host).with_priority(Priority::of(purpose)),
            permits: self.permits.of_namespace(namespace),
            metrics: self.metrics.clone(),
            compute: self.compute.clone(),
            limits: self.limits,
            cloud: cloud.clone(),
            host,
            identity: credential.identity(tenant, cloud),
            tenant: tenant.clone(),
            credential,
            deadline,
            since: (purpose == Purpose::Refresh).then(Instant::now),
        };
        session.check()?;
        Ok(Vault::new(Arc::new(session)))
    }

    /// The process's caches; or empty ones for this fetch alone, for a token that Entra ID has to
    /// check.
    fn caches(&self, credential: &Credential) -> IdentityCaches {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        match credential.service_account() {
            Some(account) if !account.may_share(now) => IdentityCaches::new(Duration::ZERO),
            Some(_) | None => self.caches.clone(),
        }
    }
}

impl fmt::Debug for Vaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vaults").field("limits", &self.limits).finish_non_exhaustive()
    }
}
