//! The CSI endpoint: Identity and Node on one Unix socket.
//!
//! The caller binds the socket and says when to stop; nothing is decided here but limits.
//! Each connection passes the `authority` adapter first, since kubelets send what h2 refuses.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tracing::warn;

use super::authority::LocalhostAuthority;
use super::identity::Identity;
use super::node::Node;
use super::proto::csi::identity_server::IdentityServer;
use super::proto::csi::node_server::NodeServer;
use crate::telemetry::key;

/// How many calls one connection may have open. A kubelet has one.
const CALLS_PER_CONNECTION: usize = 64;

/// What a message may have; upstream's limit, which is gRPC's default.
const MESSAGE: usize = 4 << 20;

/// A dead peer is noticed after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The driver's name and node service.
#[derive(Debug)]
pub struct Driver {
    /// The driver's name in domain form.
    pub name: String,
    /// The node service.
    pub node: Node,
}

/// How long is waited after a failed accept: descriptors have run out, and trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, each with its `:authority` rewritten.
///
/// # Errors
/// The listener cannot be used.
pub(super) fn connections(
    listener: UnixListener,
) -> io::Result<impl Stream<Item = io::Result<LocalhostAuthority<UnixStream>>>> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    Ok(UnixListenerStream::new(listener).then(async |accepted| {
        if let Err(error) = &accepted {
            warn!({ key::ERROR } = %error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted.map(LocalhostAuthority::new)
    }))
}

/// Serves CSI on `listener` until `stop` is done, then lets the open calls end.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: UnixListener,
    driver: Driver,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let connections = connections(listener)?;
    Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(IdentityServer::new(Identity { name: driver.name }).max_decoding_message_size(MESSAGE))
        .add_service(NodeServer::new(driver.node).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(connections, stop)
        .await?;
    Ok(())
}
