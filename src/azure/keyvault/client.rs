//! The HTTPS client of every service: TLS by the process's provider, the environment's proxy, no
//! redirects.
//!
//! Sends nothing; `http` does.

use std::error::Error as StdError;
use std::time::Duration;

use super::connector::OpenedConnections;
use super::error::Error;
use super::resolve::Resolver;

/// How long establishing a connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the metadata service, which runs on the node's own host.
const IMDS_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an idle connection is kept. Longer than one fetch, much shorter than the poll interval
/// and than load balancers and NAT tables keep it; its buffers hold the last responses as long. The
/// pool checks once in such a time, so that it may be twice as long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many idle connections are kept per host: two fetches of sixteen objects. Each costs some 30
/// KiB.
const MAX_IDLE_PER_HOST: usize = 32;
/// The interval of HTTP/2 pings on a connection with requests, and their timeout.
const HTTP2_PING: Duration = Duration::from_secs(5);

/// A client, and the number of connections that it has opened.
#[derive(Debug, Clone)]
pub(super) struct CountedClient {
    pub(super) client: reqwest::Client,
    pub(super) opened: OpenedConnections,
}

/// The settings of every client.
pub(super) fn builder(user_agent: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(user_agent)
        .https_only(true)
        .tls_backend_rustls()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .http2_keep_alive_interval(HTTP2_PING)
        .http2_keep_alive_timeout(HTTP2_PING)
        .dns_resolver(Resolver::default())
}

/// The settings for the metadata service: plain HTTP, never through a proxy, no CA certificates.
pub(super) fn imds_builder(user_agent: &str) -> reqwest::ClientBuilder {
    builder(user_agent).https_only(false).no_proxy().tls_certs_only([]).connect_timeout(IMDS_CONNECT_TIMEOUT)
}

/// Builds a client.
///
/// # Errors
/// [`Error::Client`].
pub(super) fn build(builder: reqwest::ClientBuilder) -> Result<CountedClient, Error> {
    // An error means that another part of the process has installed a provider already, which is
    // used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let opened = OpenedConnections::default();
    let client = builder.connector_layer(opened.clone()).build();
    Ok(CountedClient { client: client.map_err(|error| Error::Client(root_cause(&error)))?, opened })
}

/// Whether the environment names a proxy for https.
pub(super) fn is_proxied() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().any(set)
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
