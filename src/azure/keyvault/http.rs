//! One HTTPS exchange: a request out, a whole answer or an [`Error`] back.
//!
//! Bounded in time and size, and it follows nothing. Does not know what the services say, and never tries twice: that is
//! `transport` and `retry`. Control goes back to `transport` or `challenge`, which put a request together.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use tokio::time::Instant;
use tracing::debug;

use super::answer;
use super::connect::Opened;
use super::error::{Error, Link, Service};
use super::resolve::{NameFault, Resolver};
use super::trust::Renewed;

/// The limits of the connection pool and of answers.
pub(super) mod limits {
    use std::time::Duration;

    /// How long a connection may take to come about, TLS included.
    pub(crate) const CONNECT: Duration = Duration::from_secs(5);
    /// The same for the metadata service, which is on the node's own host.
    pub(crate) const CONNECT_IMDS: Duration = Duration::from_secs(2);
    /// How long an idle connection is kept. Longer than one fetch, much shorter than the poll interval and than what
    /// load balancers and NAT tables keep; and its buffers hold the last answers as long. The pool looks once in such a time, so
    /// that it may be twice as long.
    pub(crate) const IDLE: Duration = Duration::from_secs(10);
    /// How many idle connections are kept per host: two fetches of sixteen objects. Each costs some 30 KiB.
    pub(crate) const IDLE_PER_HOST: usize = 32;
    /// After how long an HTTP/2 connection that has requests is asked for a sign of life, and how long it may take for it.
    pub(crate) const PING: Duration = Duration::from_secs(5);
    /// The largest answer that holds an object. Key Vault's own limit for a secret is 25 kB.
    pub(crate) const OBJECT: usize = 1 << 20;
    /// The largest answer that holds a token, or an error.
    pub(crate) const SMALL: usize = 64 << 10;
}

/// The process's HTTPS client, with its limits. Cheap to clone; all clones share one pool.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    exchange: Duration,
    proxied: bool,
}

/// The client itself.
#[derive(Debug, Clone)]
enum Client {
    /// One whose CA certificates never change.
    Fixed(reqwest::Client),
    /// One that follows the CA certificates.
    Renewed(Renewed),
}

/// Where a request goes, for error texts and logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) service: Service,
    pub(super) host: &'a str,
    /// What the request is for: `challenge`, `token` or a collection of objects.
    pub(super) what: &'static str,
}

/// A whole answer, whatever its status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The server's certificate in DER, from a client that was built to tell it.
    pub(super) peer: Option<Vec<u8>>,
}

/// What is the same for every client: TLS by the process's provider, the environment's proxy, no redirects.
pub(super) fn builder(user_agent: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(user_agent)
        .https_only(true)
        .tls_backend_rustls()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits::CONNECT)
        .pool_idle_timeout(limits::IDLE)
        .pool_max_idle_per_host(limits::IDLE_PER_HOST)
        .http2_keep_alive_interval(limits::PING)
        .http2_keep_alive_timeout(limits::PING)
        .dns_resolver(Resolver::default())
}

/// What is special about the way to the metadata service: plain HTTP, never by a proxy, no CA certificates, and next door.
pub(super) fn imds_builder(user_agent: &str) -> reqwest::ClientBuilder {
    builder(user_agent).https_only(false).no_proxy().tls_certs_only([]).connect_timeout(limits::CONNECT_IMDS)
}

/// A client with its connections.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) client: reqwest::Client,
    /// How many it has opened.
    pub(super) opened: Opened,
}

/// Builds a client.
///
/// # Errors
/// [`Error::Client`].
pub(super) fn built(builder: reqwest::ClientBuilder) -> Result<Pool, Error> {
    // Another part of the process may have chosen the provider already; then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let opened = Opened::default();
    let client = builder.connector_layer(opened.clone()).build();
    Ok(Pool { client: client.map_err(|error| Error::Client(innermost(&error)))?, opened })
}

impl Http {
    /// Builds a client for the whole life of the process; reads the proxy's variables.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub(super) fn new(builder: reqwest::ClientBuilder, exchange: Duration) -> Result<Http, Error> {
        Ok(Http { client: Client::Fixed(built(builder)?.client), exchange, proxied: is_proxied() })
    }

    /// The same for a client that follows the system's CA certificates, or those of SSL_CERT_FILE and SSL_CERT_DIR.
    pub(super) fn renewed(client: Renewed, exchange: Duration, proxied: bool) -> Http {
        Http { client: Client::Renewed(client), exchange, proxied }
    }

    /// The same for a client that uses no proxy, whatever the environment says.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub(super) fn direct(builder: reqwest::ClientBuilder, exchange: Duration) -> Result<Http, Error> {
        Ok(Http { proxied: false, ..Http::new(builder, exchange)? })
    }

    /// Sends `request` and reads the answer to its end.
    ///
    /// A success may be as long as `limit` bytes, any other answer [`limits::SMALL`]; the latter's body is dropped when longer.
    ///
    /// # Errors
    /// No connection, no answer in time, a broken or a too large answer. Any status is a success here.
    pub(super) async fn exchange(
        &self,
        place: Place<'_>,
        request: reqwest::Request,
        limit: usize,
    ) -> Result<Reply, Error> {
        let started = Instant::now();
        let result = match tokio::time::timeout(self.exchange, self.send(place, request, limit)).await {
            Ok(result) => result,
            Err(_) => Err(Error::NoAnswer { host: place.host.to_owned(), limit: self.exchange }),
        };
        let duration_ms = started.elapsed().as_millis() as u64;
        let Place { what, host, .. } = place;
        match &result {
            Ok(reply) => {
                let request_id = answer::request_id(&reply.headers);
                debug!(what, host, status = reply.status, duration_ms, request_id, "exchange");
            }
            Err(error) => debug!(what, host, duration_ms, %error, "exchange failed"),
        }
        result
    }

    async fn send(&self, place: Place<'_>, request: reqwest::Request, limit: usize) -> Result<Reply, Error> {
        let broken = |error: reqwest::Error| self.unreachable(place, &error);
        let mut response = self.execute(place, request).await?;
        let status = response.status();
        let limit = if status.is_success() { limit } else { limits::SMALL };
        let headers = std::mem::take(response.headers_mut());
        let peer = response.extensions().get::<reqwest::tls::TlsInfo>();
        let peer = peer.and_then(reqwest::tls::TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        let mut body = BytesMut::new();
        // The length is counted, not believed: it may be missing or false, and it says nothing about a compressed body.
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > limit {
                if status.is_success() {
                    return Err(Error::TooLarge { host: place.host.to_owned(), limit });
                }
                // What makes an error long is not worth reading, and its status is known.
                body.clear();
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status: status.as_u16(), headers, body: body.freeze(), peer })
    }

    /// Sends the request, and once more when the server's authority has come to be trusted just now.
    async fn execute(&self, place: Place<'_>, request: reqwest::Request) -> Result<reqwest::Response, Error> {
        let broken = |error: reqwest::Error| self.unreachable(place, &error);
        let renewed = match &self.client {
            Client::Fixed(client) => return client.execute(request).await.map_err(broken),
            Client::Renewed(renewed) => renewed,
        };
        let again = request.try_clone();
        let current = renewed.current().await;
        let error = match current.pool.client.execute(request).await {
            Ok(response) => return Ok(response),
            Err(error) => broken(error),
        };
        let untrusted = matches!(error, Error::Unreachable { link: Link::UnknownIssuer, .. });
        match again.filter(|_| untrusted) {
            Some(request) => match renewed.newer(&current).await {
                Some(newer) => newer.pool.client.execute(request).await.map_err(broken),
                None => Err(error),
            },
            None => Err(error),
        }
    }

    fn unreachable(&self, place: Place<'_>, error: &reqwest::Error) -> Error {
        Error::Unreachable {
            service: place.service,
            host: place.host.to_owned(),
            link: link(error),
            proxied: self.proxied,
        }
    }
}

/// Whether the environment names a proxy for https.
pub(super) fn is_proxied() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().any(set)
}

/// Finds out what broke. The causes sit several levels down, and reqwest's own text holds the whole URL.
fn link(error: &reqwest::Error) -> Link {
    if let Some(fault) = find::<NameFault>(error) {
        return match fault {
            NameFault::Unknown => Link::NameUnknown,
            NameFault::Lookup => Link::NameLookup,
        };
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        let rustls::Error::InvalidCertificate(fault) = tls else {
            return Link::Handshake;
        };
        // An authority that was renewed under its old name is another one, and its signatures do not fit the old key.
        let unknown = matches!(fault, rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature);
        return if unknown { Link::UnknownIssuer } else { Link::Certificate };
    }
    if error.is_connect() && error.is_timeout() {
        return Link::ConnectTimeout;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) if error.is_connect() => Link::ConnectTimeout,
        // These words of the system say nothing to a reader.
        Some(io::ErrorKind::Other | io::ErrorKind::UnexpectedEof) | None if error.is_connect() => Link::NoConnection,
        Some(io::ErrorKind::Other | io::ErrorKind::UnexpectedEof) | None => Link::CutOff,
        Some(kind) => Link::Io(kind),
    }
}

/// The first error of type `E` in the chain of causes.
///
/// An [`io::Error`] passes over what it wraps in its `source()`, so that it is opened by hand.
pub(super) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
