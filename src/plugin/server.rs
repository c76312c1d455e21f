//! The provider's endpoint: the provider protocol and gRPC health on one Unix socket.
//!
//! The caller binds the socket and says when to stop; nothing is decided here but limits.

use std::future::Future;
use std::os::unix::net::UnixListener;

use keyvault_csi_proto::health::health_server::HealthServer;
use keyvault_csi_proto::provider::csi_driver_provider_server::CsiDriverProviderServer;
use tonic::transport::Server;

use super::service::Provider;
use crate::grpc::connections;

/// How many calls one connection may have open: a driver has one connection for all pods of the node.
const CALLS_PER_CONNECTION: usize = 256;
/// What a request may have; gRPC's default.
const MESSAGE: usize = 4 << 20;

/// Serves the provider protocol on `listener` until `stop` is done, then lets the open calls end.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: UnixListener,
    provider: Provider,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .add_service(CsiDriverProviderServer::new(provider.clone()).max_decoding_message_size(MESSAGE))
        .add_service(HealthServer::new(provider).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(connections(listener)?, stop)
        .await?;
    Ok(())
}
