//! The service of the provider protocol: parses each call, fetches, and maps, counts and logs the
//! outcome.
//!
//! Never logs a request: attributes and secrets have tokens. A fetch runs in its own task, since
//! tonic drops a handler when its caller disconnects, and other callers may share the fetch.

use std::time::Duration;

use keyvault_csi_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};
use keyvault_csi_proto::provider::csi_driver_provider_server::CsiDriverProvider;
use keyvault_csi_proto::provider::{File, MountRequest, MountResponse, ObjectVersion, VersionRequest, VersionResponse};
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::request::{self, Mount};
use crate::azure::provider::Azure;
use crate::backend::{Error, whole_payload};
use crate::model::{Class, ExposeSecret as _, Fetch, FileMode, Payload, Purpose, Reason};
use crate::server::grpc::{deadline, failed};
use crate::server::metrics::ProviderMetrics;
use crate::server::telemetry::key;

/// The version of the protocol.
const PROTOCOL: &str = "v1alpha1";
/// Upstream's runtime name, which drivers log.
const RUNTIME: &str = "secrets-store-csi-driver-provider-azure";

/// The largest encoded reply that drivers accept by default
/// (docs/reference/csi-driver.md#mount-reply, docs/reference/csi-driver.md#provider-sockets). The
/// content of a volume has the same limit, without its names.
const MAX_REPLY: usize = 4 << 20;

/// How many mounts may be open before further ones are refused: a mount outlives a caller that
/// disconnects.
const MAX_OPEN_CALLS: usize = 4_096;

/// The services of the provider's socket.
#[derive(Debug, Clone)]
pub struct ProviderService {
    /// The Azure provider.
    pub azure: Azure,
    /// Counts the calls.
    pub metrics: ProviderMetrics,
    /// Holds the tasks that outlive their callers, so that a shutdown can wait for them.
    pub tasks: TaskTracker,
}

#[tonic::async_trait]
impl CsiDriverProvider for ProviderService {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let started = Instant::now();
        let response = VersionResponse {
            version: PROTOCOL.to_owned(),
            runtime_name: RUNTIME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.metrics.called("/v1alpha1.CSIDriverProvider/Version", Ok(()), started.elapsed());
        Ok(Response::new(response))
    }

    async fn mount(&self, request: Request<MountRequest>) -> Result<Response<MountResponse>, Status> {
        let started = Instant::now();
        let deadline = deadline(&request, started);
        let outcome = match request::mount(&request.into_inner()) {
            Ok(_) if self.tasks.len() >= MAX_OPEN_CALLS => {
                Err((Reason::Busy, format!("{MAX_OPEN_CALLS} mounts are open on this node")))
            }
            Ok(mount) => {
                let provider = self.clone();
                let task = self.tasks.spawn(async move { provider.fetch(mount, deadline, started).await });
                task.await.unwrap_or_else(|_| Err((Reason::Internal, "the fetch was lost".to_owned())))
            }
            Err(refusal) => {
                warn!({ key::REASON } = %Reason::InvalidRequest, { key::ERROR } = %refusal, "mount refused");
                Err((Reason::InvalidRequest, refusal.to_string()))
            }
        };
        let counted = outcome.as_ref().map(drop).map_err(|(reason, _)| *reason);
        self.metrics.called("/v1alpha1.CSIDriverProvider/Mount", counted, started.elapsed());
        outcome.map(Response::new).map_err(|(reason, text)| failed(reason, &text))
    }
}

impl ProviderService {
    /// Fetches and logs: in the task, so that it also happens if the caller disconnects.
    async fn fetch(
        &self,
        mount: Mount,
        deadline: Instant,
        started: Instant,
    ) -> Result<MountResponse, (Reason, String)> {
        let Mount { caller, class, target, mode } = mount;
        let azure = self.azure.with_default_mode(mode);
        let fetch = Fetch { class: &class, caller: &caller, target: &target, purpose: Purpose::Mount, deadline };
        // Only the driver can read what the volume holds.
        let fetched = match azure.prepare(fetch, None).await {
            Ok(fetch) => whole_payload(&fetch).await,
            Err(error) => Err(error.into()),
        };
        let failed = |error: Error| (error.reason(), error.to_string());
        let outcome = fetched.map_err(failed).and_then(|payload| reply(&class, &payload));
        let elapsed = started.elapsed();
        match &outcome {
            Ok(reply) => info!({ key::POD } = %caller.pod, files = reply.files.len(), ?elapsed, "objects fetched"),
            Err((reason, text)) => {
                warn!({ key::POD } = %caller.pod, { key::REASON } = %reason, ?elapsed, { key::ERROR } = %text, "mount failed");
            }
        }
        outcome
    }
}

/// The reply with the whole payload, unless the driver would refuse it.
fn reply(class: &Class, payload: &Payload) -> Result<MountResponse, (Reason, String)> {
    let files = payload.files().iter().map(|file| File {
        path: file.name.to_string(),
        mode: mode(file.mode),
        contents: file.content.expose_secret().to_vec(),
    });
    let versions = payload.versions().iter();
    let versions = versions.map(|version| ObjectVersion { id: version.id.clone(), version: version.version.clone() });
    let reply = MountResponse { object_version: versions.collect(), error: None, files: files.collect() };
    let bytes = reply.encoded_len();
    if bytes > MAX_REPLY {
        let text = format!(
            "SecretProviderClass {}: the files with their names and versions are a reply of {bytes} bytes; drivers accept {MAX_REPLY}: \
             spread the objects over several classes",
            class.reference
        );
        return Err((Reason::TooLarge, text));
    }
    Ok(reply)
}

/// Permission bits for the wire. 0 would mean unset, so mode 0 has the file type bits of a regular
/// file, which drivers mask out.
fn mode(mode: FileMode) -> i32 {
    const REGULAR: i32 = 0o100_000;
    match i32::try_from(mode.bits()) {
        Ok(0) | Err(_) => REGULAR,
        Ok(bits) => bits,
    }
}

#[tonic::async_trait]
impl health_server::Health for ProviderService {
    /// Always serving, for every service name (docs/reference/azure-provider.md#grpc-services).
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.metrics.called("/grpc.health.v1.Health/Check", Ok(()), Duration::ZERO);
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}
