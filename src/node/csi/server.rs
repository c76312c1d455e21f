//! The CSI endpoint: Identity and Node on one Unix socket.
//!
//! The caller binds the socket and says when to stop; `grpc` has the limits, and makes each connection one that h2
//! takes.

use std::future::Future;
use std::os::unix::net::UnixListener;

use keyvault_csi_proto::csi::identity_server::IdentityServer;
use keyvault_csi_proto::csi::node_server::NodeServer;

use super::identity::Identity;
use super::node::Node;
use crate::server::grpc::{MESSAGE, connections, server};

/// The driver's name and node service.
#[derive(Debug)]
pub struct Driver {
    /// The driver's name in domain form.
    pub name: String,
    /// The node service.
    pub node: Node,
}

/// Serves CSI on `listener`, to at most `room` connections at once, until `stop` is done, then lets the open calls end.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: UnixListener,
    driver: Driver,
    room: usize,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    server()
        .add_service(IdentityServer::new(Identity { name: driver.name }).max_decoding_message_size(MESSAGE))
        .add_service(NodeServer::new(driver.node).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(connections(listener, room)?, stop)
        .await?;
    Ok(())
}
