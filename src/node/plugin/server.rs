//! The provider's endpoint: the provider protocol and gRPC health on one Unix socket.
//!
//! The caller binds the socket and ends the server; `grpc` has the limits.

use std::future::Future;
use std::os::unix::net::UnixListener;

use keyvault_csi_proto::health::health_server::HealthServer;
use keyvault_csi_proto::provider::csi_driver_provider_server::CsiDriverProviderServer;

use super::service::ProviderService;
use crate::server::grpc::{MESSAGE, connections, server};

/// Serves the provider protocol on `listener`, to at most `connection_limit` connections at once,
/// until `shutdown` completes; then completes the open calls.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: UnixListener,
    provider: ProviderService,
    connection_limit: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    server()
        .add_service(CsiDriverProviderServer::new(provider.clone()).max_decoding_message_size(MESSAGE))
        .add_service(HealthServer::new(provider).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(connections(listener, connection_limit)?, shutdown)
        .await?;
    Ok(())
}
