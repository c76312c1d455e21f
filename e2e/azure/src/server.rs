//! Accepts connections, with or without TLS, and serves HTTP/1.1 or HTTP/2 on them.
//!
//! Each request goes to `dispatch`. An error ends its own connection only and is not logged: tests
//! break connections on purpose.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::dispatch;
use crate::request::endpoint::Endpoint;
use crate::state::SharedState;
use crate::token_proxy::ClusterEndpoints;

/// Further connections wait in the kernel's queue until one ends.
const MAX_CONNECTIONS: usize = 2048;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a socket serves.
#[derive(Clone)]
pub(crate) enum ListenerKind {
    /// TLS for Entra ID and Key Vault.
    Azure(TlsAcceptor),
    /// No TLS: the metadata service.
    Imds,
    /// TLS for a cluster's API server and token proxy; the SNI of the client selects one.
    Cluster(TlsAcceptor, ClusterEndpoints),
}

/// Serves until the runtime shuts down.
pub(crate) async fn run(listener: TcpListener, kind: ListenerKind, shared: Arc<SharedState>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // The semaphore is never closed, so the loop ends only with the runtime.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely no file descriptor is free: let connections end before the next try.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (kind, shared) = (kind.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            Box::pin(accept(stream, kind, shared)).await;
            drop(slot);
        });
    }
}

async fn accept(stream: TcpStream, kind: ListenerKind, shared: Arc<SharedState>) {
    // Nagle's algorithm would delay small responses, and tests measure latency.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match kind {
        ListenerKind::Imds => serve_connection(stream, Endpoint::Imds, shared).await,
        ListenerKind::Azure(tls) => {
            if let Some(stream) = handshake(stream, tls).await {
                serve_connection(stream, Endpoint::Azure, shared).await;
            }
        }
        ListenerKind::Cluster(tls, cluster) => {
            if let Some(stream) = handshake(stream, tls).await {
                let endpoint = cluster.endpoint(stream.get_ref().1.server_name());
                serve_connection(stream, endpoint, shared).await;
            }
        }
    }
}

async fn handshake(stream: TcpStream, tls: TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
    handshake.await.ok()?.ok()
}

async fn serve_connection<S>(stream: S, endpoint: Endpoint, shared: Arc<SharedState>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let close = Arc::new(Notify::new());
    let service = {
        let close = Arc::clone(&close);
        service_fn(move |request| dispatch::serve(Arc::clone(&shared), Arc::clone(&close), endpoint.clone(), request))
    };
    // No idle timeout: a client's pool must not send on a connection that is just being closed.
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Errors of the connection are the client's to report.
        _ = connection => {}
        () = close.notified() => {}
    }
}
