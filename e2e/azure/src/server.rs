//! Accepting connections, with TLS or without, and speaking HTTP/1.1 or HTTP/2 on them.
//!
//! Knows nothing of what is asked; each request goes to `dispatch`.
//! A connection that misbehaves ends alone and is not reported: tests break connections on purpose.

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

use crate::call::Door;
use crate::dispatch;
use crate::proxy::Cluster;
use crate::world::Shared;

/// More connections wait in the kernel's queue until one ends.
const MAX_CONNECTIONS: usize = 2048;

/// A client that does not finish its TLS handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How connections of one socket begin, and which door their requests come in by.
#[derive(Clone)]
pub(crate) enum Entrance {
    /// TLS for Entra ID and Key Vault.
    Azure(TlsAcceptor),
    /// No TLS: the metadata service.
    Imds,
    /// TLS for a cluster's API server and token proxy, told apart by the name that the client asks for.
    Cluster(TlsAcceptor, Cluster),
}

/// Serves until the runtime goes away.
pub(crate) async fn run(listener: TcpListener, entrance: Entrance, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // The semaphore is never closed, so the loop ends only with the runtime.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: let connections end before trying again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (entrance, shared) = (entrance.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            Box::pin(enter(stream, entrance, shared)).await;
            drop(slot);
        });
    }
}

async fn enter(stream: TcpStream, entrance: Entrance, shared: Arc<Shared>) {
    // Small answers must not wait for more to send: latency is what tests measure.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match entrance {
        Entrance::Imds => serve_connection(stream, Door::Imds, shared).await,
        Entrance::Azure(tls) => {
            if let Some(stream) = handshake(stream, tls).await {
                serve_connection(stream, Door::Azure, shared).await;
            }
        }
        Entrance::Cluster(tls, cluster) => {
            if let Some(stream) = handshake(stream, tls).await {
                let door = cluster.door(stream.get_ref().1.server_name());
                serve_connection(stream, door, shared).await;
            }
        }
    }
}

async fn handshake(stream: TcpStream, tls: TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
    handshake.await.ok()?.ok()
}

async fn serve_connection<S>(stream: S, door: Door, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = Arc::new(Notify::new());
    let service = {
        let cut = Arc::clone(&cut);
        service_fn(move |request| dispatch::serve(Arc::clone(&shared), Arc::clone(&cut), door.clone(), request))
    };
    // No limit on idle time: a client's pool must not meet a connection that we are just closing.
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // How a connection ended is the client's to say.
        _ = connection => {}
        () = cut.notified() => {}
    }
}
