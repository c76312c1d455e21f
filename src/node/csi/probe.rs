//! Probes the driver's own CSI socket, as the liveness-probe sidecar does.
//!
//! Opens a connection for each call, so that a socket that no longer accepts is noticed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyvault_csi_proto::csi::ProbeRequest;
use keyvault_csi_proto::csi::identity_client::IdentityClient;

use crate::server::grpc::channel;

/// The sidecar's `--probe-timeout` in upstream's chart.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Calls Identity.Probe on the socket.
///
/// # Errors
/// A text for the operator: the socket does not accept, or the driver does not answer or is not
/// ready.
pub async fn probe(socket: &Path) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, call(socket.to_owned())).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("the driver is not ready".to_owned()),
        Ok(Err(error)) => Err(format!("cannot probe {}: {error:#}", socket.display())),
        Err(_) => Err(format!("no answer to Probe on {} within {TIMEOUT:?}", socket.display())),
    }
}

async fn call(socket: PathBuf) -> anyhow::Result<bool> {
    let response = IdentityClient::new(channel(&socket).await?).probe(ProbeRequest {}).await?;
    Ok(response.into_inner().ready.unwrap_or(true))
}
