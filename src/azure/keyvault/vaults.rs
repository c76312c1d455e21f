//! What the process holds for Azure: its HTTP clients, what it has learned about vaults, and the tokens of identities.
//!
//! Opens vaults without touching the network; holds no client secret and no key. Control goes on to `vault`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use azure_core::time::OffsetDateTime;
use tokio::time::Instant;

use super::assertion::Assertions;
use super::binding::{TokenProxy, TokenProxyOptions};
use super::budget::Budget;
use super::challenge::Challenges;
use super::cloud::Cloud;
use super::error::Error;
use super::http::{self, Http};
use super::identity::Credential;
use super::imds::Imds;
use super::names::{TenantId, VaultName};
use super::pace::Rate;
use super::places::Places;
use super::rank::{Purpose, Rank};
use super::recent::Recent;
use super::retry::Limits;
use super::session::Access;
use super::tokens::Tokens;
use super::trust::Renewed;
use super::vault::Vault;
use crate::compute::Compute;
use crate::server::metrics::Metrics;

/// What the caller chooses.
#[derive(Debug, Clone)]
pub struct Options {
    /// What stands in the User-Agent header of every request; printable ASCII.
    pub user_agent: String,
    /// How the token proxy of AKS identity bindings is found.
    pub token_proxy: TokenProxyOptions,
    /// For how long an object that one fetch got is given to others of the same identity; zero shares nothing.
    pub freshness: Duration,
    /// How fast each vault may be asked.
    pub rate: Rate,
    /// How many connections there may be.
    pub connections: Connections,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Where keys are read that log in.
    pub compute: Compute,
}

/// How many connections to Azure there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Fetches that may use one at once: of objects, tokens and challenges. A namespace may have half of them.
    pub fetches: usize,
    /// Connections that may lie idle; beyond that all idle ones are closed.
    pub idle: usize,
}

/// For whom a vault is opened, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// The namespace of the pod.
    pub namespace: &'a str,
    /// What it is for.
    pub purpose: Purpose,
    /// When the fetch must have ended.
    pub deadline: Instant,
}

/// The way to every vault. Built once per process and cheap to clone; all clones share one pool of connections.
#[derive(Clone)]
pub struct Vaults {
    http: Http,
    imds: Imds,
    token_proxy: TokenProxy,
    challenges: Challenges,
    memory: Memory,
    budget: Budget,
    places: Places,
    metrics: Metrics,
    compute: Compute,
    limits: Limits,
}

/// What one fetch got and another of the same identity is given.
#[derive(Clone)]
struct Memory {
    tokens: Tokens,
    assertions: Assertions,
    recent: Recent,
}

impl Memory {
    /// An empty one that keeps objects for `freshness`.
    fn new(freshness: Duration) -> Memory {
        Memory { tokens: Tokens::default(), assertions: Assertions::default(), recent: Recent::new(freshness) }
    }
}

impl Vaults {
    /// Builds the HTTPS client: TLS 1.2 or newer, the system's CA certificates or those of SSL_CERT_FILE and SSL_CERT_DIR, the
    /// proxy of HTTPS_PROXY and NO_PROXY. Variables are read here and never again, certificates when they change.
    ///
    /// Makes rustls use ring, unless the process has chosen another provider before.
    ///
    /// # Errors
    /// [`Error::Client`], when there are no CA certificates or the user agent is not printable.
    pub fn new(options: Options) -> Result<Vaults, Error> {
        let (agent, exchange) = (options.user_agent.clone(), Limits::PRODUCT.exchange);
        let address = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80));
        let imds = Imds { http: Http::direct(http::imds_builder(&agent), exchange)?, address };
        let make = move |roots| http::built(http::builder(&agent).tls_certs_only(roots));
        let http = Http::renewed(Renewed::new(Box::new(make), options.connections.idle)?, exchange, http::is_proxied());
        Vaults::with_clients(http, imds, Limits::PRODUCT, options)
    }

    /// The same with clients and limits of the caller's choice.
    pub(super) fn with_clients(http: Http, imds: Imds, limits: Limits, options: Options) -> Result<Vaults, Error> {
        Ok(Vaults {
            http,
            imds,
            token_proxy: TokenProxy::new(options.token_proxy, &options.user_agent, limits.exchange),
            challenges: Challenges::default(),
            memory: Memory::new(options.freshness),
            budget: Budget::new(options.rate, options.metrics.clone()),
            places: Places::new(options.connections.fetches),
            metrics: options.metrics,
            compute: options.compute,
            limits,
        })
    }

    /// How many vaults are left alone at this moment: because they asked for that, and because they only fail.
    pub fn restrained(&self) -> [usize; 2] {
        self.budget.restrained()
    }

    /// What was fetched a moment ago.
    #[cfg(test)]
    pub(super) fn recent(&self) -> &Recent {
        &self.memory.recent
    }

    /// Opens a vault for one fetch. Nothing is sent before the first object is asked for.
    ///
    /// # Errors
    /// [`Error::Credential`], when the credential is incomplete, or cannot be used.
    pub fn open(
        &self,
        errand: Errand<'_>,
        cloud: &Cloud,
        name: &VaultName,
        tenant: &TenantId,
        credential: Credential,
    ) -> Result<Vault, Error> {
        let Errand { namespace, purpose, deadline } = errand;
        let host = name.host(cloud);
        let memory = self.memory(&credential);
        let access = Access {
            http: self.http.clone(),
            imds: self.imds.clone(),
            token_proxy: self.token_proxy.clone(),
            challenges: self.challenges.clone(),
            tokens: memory.tokens,
            assertions: memory.assertions,
            recent: memory.recent,
            lane: self.budget.lane(&host).ranked(Rank::of(purpose)),
            claim: self.places.of(namespace),
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
        access.check()?;
        Ok(Vault::new(Arc::new(access)))
    }

    /// The process's memory, or one of the fetch's own, which ends with it, for a token that Entra ID has to judge.
    fn memory(&self, credential: &Credential) -> Memory {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        match credential.service_account() {
            Some(account) if !account.may_share(now) => Memory::new(Duration::ZERO),
            Some(_) | None => self.memory.clone(),
        }
    }
}

impl fmt::Debug for Vaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vaults").field("limits", &self.limits).finish_non_exhaustive()
    }
}
