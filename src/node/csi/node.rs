//! The CSI Node service: parses each call, passes it to `volume`, and maps, counts and logs the
//! outcome.
//!
//! Never logs a request: the volume context and the secrets hold tokens. Publishes and unpublishes
//! run in tasks of their own, since tonic drops a handler when its caller goes away.

use keyvault_csi_proto::csi::node_server;
use keyvault_csi_proto::csi::node_service_capability::rpc::Type as Capability;
use keyvault_csi_proto::csi::node_service_capability::{Rpc, Type};
use keyvault_csi_proto::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{debug, info, warn};

use super::{request, status};
use crate::model::Reason;
use crate::node::volume::{Attempt, Error, PublishRequest, Published, TargetPath, Volumes};
use crate::server::grpc::deadline;
use crate::server::metrics::{NodeMetrics, Provider};
use crate::server::telemetry::key;

/// How many publishes and unpublishes may be open before further publishes are refused: a call
/// outlives a caller that disconnects.
const MAX_OPEN_CALLS: usize = 4_096;

/// The CSI Node service.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node's name, as the kubelet knows it.
    pub node_id: String,
    /// The volumes of this node.
    pub volumes: Volumes,
    /// Counts the calls.
    pub metrics: NodeMetrics,
    /// Holds the tasks that outlive their callers, so that a shutdown can wait for them.
    pub tasks: TaskTracker,
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let started = Instant::now();
        let deadline = deadline(&request, started);
        let message = request.into_inner();
        let target = TargetPath::new(&message.target_path);
        let request = match request::publish(message, deadline) {
            Ok(request) => request,
            Err(refusal) => {
                warn!({ key::REASON } = %Reason::InvalidRequest, { key::ERROR } = %refusal, "publish refused");
                // A volume that a pod uses stays, even if the CSIDriver object is wrong now
                // (docs/decisions.md#d4).
                if let Ok(target) = target
                    && self.volumes.is_published(&target, deadline).await
                {
                    self.metrics.published(Provider::None, Ok(()));
                    return Ok(Response::new(NodePublishVolumeResponse {}));
                }
                self.metrics.published(Provider::None, Err(Reason::InvalidRequest.into()));
                return Err(status::refused(&refusal));
            }
        };
        if self.tasks.len() >= MAX_OPEN_CALLS {
            self.metrics.published(Provider::None, Err(Reason::Busy.into()));
            return Err(Status::resource_exhausted(format!(
                "{MAX_OPEN_CALLS} calls are open on this node; the kubelet calls again"
            )));
        }
        let (pod, target) = (request.caller.pod.clone(), request.target.clone());
        debug!({ key::POD } = %pod, { key::TARGET } = %target, "node publish volume");
        let task = self.tasks.spawn(publish(self.volumes.clone(), self.metrics.clone(), request, started));
        match task.await.unwrap_or_else(|_| Err(Error::TaskLost { target: target.to_string() })) {
            Ok(_) => Ok(Response::new(NodePublishVolumeResponse {})),
            Err(error) => Err(status::publish_failed(&pod, &error)),
        }
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let started = Instant::now();
        let deadline = deadline(&request, started);
        let target = request::unpublish(&request.into_inner()).map_err(|refusal| {
            self.metrics.unpublished(Err(Reason::InvalidRequest));
            warn!({ key::REASON } = %Reason::InvalidRequest, { key::ERROR } = %refusal, "unpublish refused");
            status::refused(&refusal)
        })?;
        let task =
            self.tasks.spawn(unpublish(self.volumes.clone(), self.metrics.clone(), target.clone(), started, deadline));
        match task.await.unwrap_or_else(|_| Err(Error::TaskLost { target: target.to_string() })) {
            Ok(()) => Ok(Response::new(NodeUnpublishVolumeResponse {})),
            Err(error) => Err(status::unpublish_failed(&target, &error)),
        }
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let rpc = Rpc { r#type: Capability::VolumeMountGroup.into() };
        let capabilities = vec![NodeServiceCapability { r#type: Some(Type::Rpc(rpc)) }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            max_volumes_per_node: 0,
            accessible_topology: None,
        }))
    }
}

/// Publishes, counts and logs: in the task, so that it also happens if the caller disconnects.
async fn publish(
    volumes: Volumes,
    metrics: NodeMetrics,
    request: PublishRequest,
    started: Instant,
) -> Result<Published, Error> {
    let (pod, target) = (request.caller.pod.clone(), request.target.clone());
    let Attempt { provider, outcome } = volumes.publish(request).await;
    let elapsed = started.elapsed();
    match &outcome {
        Ok(published) => {
            metrics.published(provider, Ok(()));
            info!({ key::POD } = %pod, { key::TARGET } = %target, outcome = ?published, ?elapsed, "volume published");
        }
        Err(error) => {
            let reason = error.reason();
            metrics.published(provider, Err(error.cause()));
            warn!({ key::POD } = %pod, { key::TARGET } = %target, { key::REASON } = %reason, ?elapsed,
                { key::ERROR } = %error, "publish failed");
        }
    }
    outcome
}

/// Unpublishes, counts and logs.
async fn unpublish(
    volumes: Volumes,
    metrics: NodeMetrics,
    target: TargetPath,
    started: Instant,
    deadline: Instant,
) -> Result<(), Error> {
    let outcome = volumes.unpublish(target.clone(), deadline).await;
    let elapsed = started.elapsed();
    metrics.unpublished(outcome.as_ref().copied().map_err(Error::reason));
    match &outcome {
        Ok(()) => info!({ key::TARGET } = %target, ?elapsed, "volume unpublished"),
        Err(error) => warn!({ key::TARGET } = %target, { key::REASON } = %error.reason(), ?elapsed,
            { key::ERROR } = %error, "unpublish failed"),
    }
    outcome
}
