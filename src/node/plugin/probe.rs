//! Asks our own socket for a sign of life, as a driver would.
//!
//! Opens a connection for each call, so that a socket that no longer accepts is noticed. `admin` serves the answer.

use std::path::Path;
use std::time::Duration;

use keyvault_csi_proto::health::HealthCheckRequest;
use keyvault_csi_proto::health::health_check_response::ServingStatus;
use keyvault_csi_proto::health::health_client::HealthClient;

use crate::server::grpc::channel;

/// Calls Health.Check on the socket, and waits as long as `timeout`.
///
/// # Errors
/// A text for the operator: the socket does not accept, or nobody answers in time.
pub async fn probe(socket: &Path, timeout: Duration) -> Result<(), String> {
    let asked = tokio::time::timeout(timeout, async {
        let answer = HealthClient::new(channel(socket).await?).check(HealthCheckRequest::default()).await?;
        Ok::<_, anyhow::Error>(answer.into_inner().status())
    });
    match asked.await {
        Ok(Ok(ServingStatus::Serving)) => Ok(()),
        Ok(Ok(status)) => Err(format!("the provider says {}", status.as_str_name())),
        Ok(Err(error)) => Err(format!("cannot ask {}: {error:#}", socket.display())),
        Err(_) => Err(format!("no answer on {} within {timeout:?}", socket.display())),
    }
}
