//! The CSI endpoint: Identity and Node on one Unix socket.
//!
//! The caller binds the socket and says when to stop; nothing is decided here but limits.
//! `grpc` makes each connection one that h2 takes.

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use keyvault_csi_proto::csi::identity_server::IdentityServer;
use keyvault_csi_proto::csi::node_server::NodeServer;
use tonic::transport::Server;

use super::identity::Identity;
use super::node::Node;
use crate::grpc::connections;

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

/// Serves CSI on `listener` until `stop` is done, then lets the open calls end.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: UnixListener,
    driver: Driver,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(IdentityServer::new(Identity { name: driver.name }).max_decoding_message_size(MESSAGE))
        .add_service(NodeServer::new(driver.node).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(connections(listener)?, stop)
        .await?;
    Ok(())
}
