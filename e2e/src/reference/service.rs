//! Serves the protocol's two calls on a Unix socket; `contract` computes the responses.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use keyvault_csi_proto::provider::csi_driver_provider_server::{CsiDriverProvider, CsiDriverProviderServer};
use keyvault_csi_proto::provider::{MountRequest, MountResponse, VersionRequest, VersionResponse};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tower::util::MapRequestLayer;

use super::contract::{self, Outcome, State};

/// The `:authority` of a call, which tonic does not pass to services.
#[derive(Clone)]
struct Authority(String);

struct Service(Arc<Mutex<State>>);

/// Serves until `shutdown` completes, and then waits for open calls.
pub(super) async fn serve(
    listener: UnixListener,
    state: Arc<Mutex<State>>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let authority = MapRequestLayer::new(|mut request: http::Request<tonic::body::Body>| {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        request.extensions_mut().insert(Authority(authority));
        request
    });
    Server::builder()
        .layer(authority)
        .add_service(CsiDriverProviderServer::new(Service(state)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await?;
    Ok(())
}

#[tonic::async_trait]
impl CsiDriverProvider for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).versions += 1;
        Ok(Response::new(VersionResponse {
            version: "v1alpha1".to_owned(),
            runtime_name: "reference-provider".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn mount(&self, request: Request<MountRequest>) -> Result<Response<MountResponse>, Status> {
        let authority = request.extensions().get().map_or(String::new(), |Authority(authority)| authority.clone());
        let outcome = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            contract::mount(&mut state, &authority, &request.into_inner())
        };
        let response = match outcome {
            Outcome::Now(response) => response,
            Outcome::After(time, response) => {
                tokio::time::sleep(time).await;
                response
            }
            Outcome::Never => std::future::pending().await,
        };
        response.map(Response::new)
    }
}
