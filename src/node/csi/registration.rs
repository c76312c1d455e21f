//! The kubelet's plugin registration: a socket that gives the driver's name and CSI socket.
//!
//! Replaces the node-driver-registrar. Offered only once the CSI socket answers, since the kubelet
//! calls it at once. If the kubelet reports a failure, the socket is created again after a pause:
//! the kubelet may not try again by itself (docs/reference/kubelet.md#registration).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keyvault_csi_proto::registration::registration_server::{Registration, RegistrationServer};
use keyvault_csi_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::sync::{Notify, watch};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::platform::socket;
use crate::queue::backoff::Backoff;
use crate::server::grpc::{MESSAGE, connections, server};
use crate::server::telemetry::key;

/// How many connections the socket may have at once. A kubelet has one or two, briefly.
const CONNECTIONS: usize = 16;

/// The first pause before a socket is created again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The data that the kubelet gets.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The driver's name in domain form.
    pub name: String,
    /// The path of the CSI socket as the kubelet sees it, which differs from ours inside a
    /// container.
    pub kubelet_path: PathBuf,
}

/// The state of the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The kubelet has not answered yet.
    Waiting,
    /// The kubelet has registered the driver.
    Registered,
    /// The kubelet refused, with this text.
    Failed(String),
}

#[derive(Debug)]
struct Service {
    plugin: Plugin,
    state: watch::Sender<State>,
    failed: Arc<Notify>,
}

#[tonic::async_trait]
impl Registration for Service {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.plugin.name.clone(),
            endpoint: self.plugin.kubelet_path.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            info!(driver = %self.plugin.name, "registered with the kubelet");
            self.state.send_replace(State::Registered);
        } else {
            warn!(driver = %self.plugin.name, { key::ERROR } = %status.error, "the kubelet refuses the registration");
            self.state.send_replace(State::Failed(status.error));
            self.failed.notify_one();
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// The registration socket's path: `<folder>/<driver>-reg.sock`.
pub fn socket_path(folder: &Path, driver: &str) -> PathBuf {
    folder.join(format!("{driver}-reg.sock"))
}

/// Offers the registration in `folder` until `shutdown` completes; then removes the socket, so that
/// the kubelet unregisters the driver.
///
/// # Errors
/// The socket cannot be created.
pub async fn serve(
    folder: &Path,
    plugin: Plugin,
    state: watch::Sender<State>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let path = socket_path(folder, &plugin.name);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    tokio::pin!(shutdown);
    loop {
        // One for each socket: a failure of the last one does not count for the next.
        let failed = Arc::new(Notify::new());
        let service = Service { plugin: plugin.clone(), state: state.clone(), failed: Arc::clone(&failed) };
        let (listener, file) = socket::listen_private(&path)?;
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let service = RegistrationServer::new(service).max_decoding_message_size(MESSAGE);
        let server =
            server().add_service(service).serve_with_incoming_shutdown(connections(listener, CONNECTIONS)?, async {
                let _ = ended.await;
            });
        tokio::pin!(server);
        let stopping = tokio::select! {
            served = &mut server => return Ok(served?),
            () = &mut shutdown => true,
            () = failed.notified() => false,
        };
        file.remove();
        let _ = end.send(());
        // The kubelet gets its response; idle connections are not waited for.
        if let Ok(served) = tokio::time::timeout(FIRST_PAUSE, &mut server).await {
            served?;
        }
        if stopping {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_exact()) => {}
            () = &mut shutdown => return Ok(()),
        }
    }
}
