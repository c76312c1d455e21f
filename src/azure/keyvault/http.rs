//! One HTTPS exchange: a request and its whole response, or an [`Error`].
//!
//! Bounded in time and size; follows no redirect and never retries. Does not interpret what the
//! services answer: `response` and `transport` do.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use tracing::debug;

use super::client::{build, is_proxied};
use super::connection_fault::ConnectionFault;
use super::endpoint::Endpoint;
use super::error::Error;
use super::reloading_client::ReloadingClient;
use super::resolve::NameFault;
use super::response::{Response, request_id};

/// The largest response with an object. Key Vault's own limit for a secret is 25 kB.
pub(super) const MAX_OBJECT_RESPONSE: usize = 1 << 20;
/// The largest response with a token, and the largest refusal.
pub(super) const MAX_SMALL_RESPONSE: usize = 64 << 10;

/// A client with its limits. Cheap to clone; all clones share one pool of connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    timeout: Duration,
    proxied: bool,
}

#[derive(Debug, Clone)]
enum Client {
    Fixed(reqwest::Client),
    Reloading(ReloadingClient),
}

impl Http {
    /// Builds a client whose CA certificates never change; reads the proxy's variables.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub(super) fn new(builder: reqwest::ClientBuilder, timeout: Duration) -> Result<Http, Error> {
        Ok(Http { client: Client::Fixed(build(builder)?.client), timeout, proxied: is_proxied() })
    }

    /// The same with a client that follows the CA bundle.
    pub(super) fn reloading(client: ReloadingClient, timeout: Duration, proxied: bool) -> Http {
        Http { client: Client::Reloading(client), timeout, proxied }
    }

    /// The same with a client that uses no proxy, for the texts of its errors.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub(super) fn direct(builder: reqwest::ClientBuilder, timeout: Duration) -> Result<Http, Error> {
        Ok(Http { proxied: false, ..Http::new(builder, timeout)? })
    }

    /// Sends `request` and reads the whole response, whatever its status.
    ///
    /// A success may have `limit` bytes. Any other response may have [`MAX_SMALL_RESPONSE`], and
    /// loses a longer body.
    ///
    /// # Errors
    /// No connection, no response in time, one that breaks off, or a success that is too large.
    pub(super) async fn exchange(
        &self,
        endpoint: Endpoint<'_>,
        request: reqwest::Request,
        limit: usize,
    ) -> Result<Response, Error> {
        let started = Instant::now();
        let result = match tokio::time::timeout(self.timeout, self.send(endpoint, request, limit)).await {
            Ok(result) => result,
            Err(_) => Err(Error::NoResponse { host: endpoint.host.to_owned(), limit: self.timeout }),
        };
        let duration_ms = started.elapsed().as_millis() as u64;
        let Endpoint { operation, host, .. } = endpoint;
        match &result {
            Ok(response) => {
                let request_id = request_id(&response.headers);
                debug!(operation, host, status = response.status, duration_ms, request_id, "exchange");
            }
            Err(error) => debug!(operation, host, duration_ms, %error, "exchange failed"),
        }
        result
    }

    async fn send(&self, endpoint: Endpoint<'_>, request: reqwest::Request, limit: usize) -> Result<Response, Error> {
        let broken = |error: reqwest::Error| self.unreachable(endpoint, &error);
        let mut response = self.execute(endpoint, request).await?;
        let status = response.status();
        let limit = if status.is_success() { limit } else { MAX_SMALL_RESPONSE };
        let headers = std::mem::take(response.headers_mut());
        let peer = response.extensions().get::<reqwest::tls::TlsInfo>();
        let peer = peer.and_then(reqwest::tls::TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        let mut body = BytesMut::new();
        // Content-Length may be missing or wrong, and says nothing about a compressed body.
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > limit {
                if status.is_success() {
                    return Err(Error::TooLarge { host: endpoint.host.to_owned(), limit });
                }
                // The status suffices.
                body.clear();
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status: status.as_u16(), headers, body: body.freeze(), peer })
    }

    /// Sends the request, and again if its server is trusted only after a change of the CA bundle.
    async fn execute(&self, endpoint: Endpoint<'_>, request: reqwest::Request) -> Result<reqwest::Response, Error> {
        let broken = |error: reqwest::Error| self.unreachable(endpoint, &error);
        let reloading = match &self.client {
            Client::Fixed(client) => return client.execute(request).await.map_err(broken),
            Client::Reloading(client) => client,
        };
        let again = request.try_clone();
        let current = reloading.current().await;
        let error = match current.pool.client.execute(request).await {
            Ok(response) => return Ok(response),
            Err(error) => broken(error),
        };
        let untrusted = matches!(error, Error::Unreachable { fault: ConnectionFault::UnknownIssuer, .. });
        match again.filter(|_| untrusted) {
            Some(request) => match reloading.newer(&current).await {
                Some(newer) => newer.pool.client.execute(request).await.map_err(broken),
                None => Err(error),
            },
            None => Err(error),
        }
    }

    fn unreachable(&self, endpoint: Endpoint<'_>, error: &reqwest::Error) -> Error {
        Error::Unreachable {
            service: endpoint.service,
            host: endpoint.host.to_owned(),
            fault: connection_fault(error),
            proxied: self.proxied,
        }
    }
}

/// The cause is several levels down, and reqwest's own text contains the whole URL.
fn connection_fault(error: &reqwest::Error) -> ConnectionFault {
    if let Some(fault) = find::<NameFault>(error) {
        return match fault {
            NameFault::Unknown => ConnectionFault::NameUnknown,
            NameFault::Lookup => ConnectionFault::NameLookup,
        };
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        let rustls::Error::InvalidCertificate(fault) = tls else {
            return ConnectionFault::Handshake;
        };
        // BadSignature: a renewed authority of the same name, whose signatures do not match the old
        // key.
        let unknown = matches!(fault, rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature);
        return if unknown { ConnectionFault::UnknownIssuer } else { ConnectionFault::Certificate };
    }
    if error.is_connect() && error.is_timeout() {
        return ConnectionFault::ConnectTimeout;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) if error.is_connect() => ConnectionFault::ConnectTimeout,
        // The texts of these kinds say nothing.
        Some(io::ErrorKind::Other | io::ErrorKind::UnexpectedEof) | None if error.is_connect() => {
            ConnectionFault::NoConnection
        }
        Some(io::ErrorKind::Other | io::ErrorKind::UnexpectedEof) | None => ConnectionFault::CutOff,
        Some(kind) => ConnectionFault::Io(kind),
    }
}

/// The first error of type `E` in the chain of causes.
///
/// `source()` of an [`io::Error`] skips the error that it wraps, hence `get_ref`.
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
