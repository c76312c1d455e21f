//! Asks our own socket for a sign of life, the way the kubelet would.
//!
//! Opens a connection for each call, so that a socket that no longer accepts is noticed.
//! `admin` serves the answer as `/healthz`, in place of the liveness-probe sidecar.

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
/// A text for the operator: the socket does not accept, or the driver does not answer or says that it is not ready.
pub async fn probe(socket: &Path) -> Result<(), String> {
    let asked = tokio::time::timeout(TIMEOUT, ask(socket.to_owned())).await;
    match asked {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("the driver says that it is not ready".to_owned()),
        Ok(Err(error)) => Err(format!("cannot probe {}: {error:#}", socket.display())),
        Err(_) => Err(format!("no answer to Probe on {} within {TIMEOUT:?}", socket.display())),
    }
}

async fn ask(socket: PathBuf) -> anyhow::Result<bool> {
    let answer = IdentityClient::new(channel(&socket).await?).probe(ProbeRequest {}).await?;
    Ok(answer.into_inner().ready.unwrap_or(true))
}
