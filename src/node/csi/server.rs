//! The CSI endpoint: Identity and Node on one Unix socket.
//!
//! The caller binds the socket and ends the server; `grpc` has the limits, and rewrites each
//! connection for h2.

use std::future::Future;
use std::os::unix::net::UnixListener;

use keyvault_csi_proto::csi::identity_server::IdentityServer;
use keyvault_csi_proto::csi::node_server::NodeServer;

use super::identity::IdentityService;
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

/// Serves CSI on `listener`, to at most `connection_limit` connections at once, until `shutdown`
/// completes; then completes the open calls.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: UnixListener,
    driver: Driver,
    connection_limit: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    server()
        .add_service(IdentityServer::new(IdentityService { name: driver.name }).max_decoding_message_size(MESSAGE))
        .add_service(NodeServer::new(driver.node).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(connections(listener, connection_limit)?, shutdown)
        .await?;
    Ok(())
}
