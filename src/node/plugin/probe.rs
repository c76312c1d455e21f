//! Probes the provider's own socket.
//!
//! Opens a connection for each call, so that a socket that no longer accepts is noticed.

use std::path::Path;
use std::time::Duration;

use keyvault_csi_proto::health::HealthCheckRequest;
use keyvault_csi_proto::health::health_check_response::ServingStatus;
use keyvault_csi_proto::health::health_client::HealthClient;

use crate::server::grpc::channel;

/// Calls Health.Check on the socket, with this timeout.
///
/// # Errors
/// A text for the operator: the socket does not accept, or the provider does not answer in time.
pub async fn probe(socket: &Path, timeout: Duration) -> Result<(), String> {
    let call = tokio::time::timeout(timeout, async {
        let response = HealthClient::new(channel(socket).await?).check(HealthCheckRequest::default()).await?;
        Ok::<_, anyhow::Error>(response.into_inner().status())
    });
    match call.await {
        Ok(Ok(ServingStatus::Serving)) => Ok(()),
        Ok(Ok(status)) => Err(format!("the provider reports {}", status.as_str_name())),
        Ok(Err(error)) => Err(format!("cannot probe {}: {error:#}", socket.display())),
        Err(_) => Err(format!("no answer on {} within {timeout:?}", socket.display())),
    }
}
