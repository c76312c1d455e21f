//! A kubelet as far as a CSI node driver can observe it: directories, calls, and its reaction to
//! failures.
//!
//! It calls the driver's real socket, and changes directories as recordings of real kubelets do
//! (docs/reference/kubelet.md). Its methods are synchronous, as the tests are.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use keyvault_csi_proto::csi::node_client::NodeClient;
use keyvault_csi_proto::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
use keyvault_csi_proto::csi::{
    NodeGetInfoRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability,
};
use keyvault_csi_proto::registration::registration_client::RegistrationClient;
use keyvault_csi_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

/// The deadline of a kubelet's calls.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How long a kubelet retries while the listener's queue is full.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);

/// A kubelet with its root directory.
#[derive(Debug)]
pub struct Kubelet {
    root: PathBuf,
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// An inline volume of a pod, with the fields of its manifest.
#[derive(Debug, Clone)]
pub struct Volume {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The volume's name.
    pub name: String,
    /// The pod's service account.
    pub service_account: String,
    /// `csi.volumeAttributes`.
    pub attributes: BTreeMap<String, String>,
    /// The data of the Secret that `csi.nodePublishSecretRef` names.
    pub secrets: BTreeMap<String, String>,
    /// `csi.readOnly`.
    pub read_only: bool,
    /// The pod's `fsGroup`.
    pub fs_group: Option<u32>,
}

static UIDS: AtomicU64 = AtomicU64::new(1);

impl Volume {
    /// A read-only volume of a new pod that mounts a class.
    pub fn of_class(namespace: &str, pod: &str, class: &str) -> Volume {
        let uid = UIDS.fetch_add(1, Ordering::Relaxed);
        Volume {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: format!("00000000-0000-4000-8000-{uid:012}"),
            name: "secrets-store01-inline".to_owned(),
            service_account: "default".to_owned(),
            attributes: BTreeMap::from([("secretProviderClass".to_owned(), class.to_owned())]),
            secrets: BTreeMap::new(),
            read_only: true,
            fs_group: None,
        }
    }

    /// Adds a service principal to the Secret of its nodePublishSecretRef.
    pub fn with_service_principal(mut self, client_id: &str, client_secret: &str) -> Volume {
        self.secrets.insert("clientid".to_owned(), client_id.to_owned());
        self.secrets.insert("clientsecret".to_owned(), client_secret.to_owned());
        self
    }

    /// The volume context that a kubelet sends: attributes and pod info.
    pub fn context(&self) -> BTreeMap<String, String> {
        let mut context = self.attributes.clone();
        for (key, value) in [
            ("pod.name", self.pod.as_str()),
            ("pod.namespace", &self.namespace),
            ("pod.uid", &self.uid),
            ("serviceAccount.name", &self.service_account),
            ("ephemeral", "true"),
        ] {
            context.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
        }
        context
    }

    /// The volume id: the same in each call, and different for each pod.
    pub fn id(&self) -> String {
        format!("csi-{}-{}", self.uid, self.name)
    }
}

impl Kubelet {
    /// A kubelet with this root directory, which calls the driver on this socket.
    ///
    /// # Errors
    /// The directories cannot be created.
    pub fn new(root: &Path, socket: &Path) -> Result<Kubelet> {
        fs::create_dir_all(root.join("pods"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Kubelet { root: root.to_owned(), socket: socket.to_owned(), runtime })
    }

    /// The target path of a volume.
    pub fn target(&self, volume: &Volume) -> PathBuf {
        self.volume_folder(volume).join("mount")
    }

    fn volume_folder(&self, volume: &Volume) -> PathBuf {
        let pod = self.root.join("pods").join(&volume.uid);
        pod.join("volumes/kubernetes.io~csi").join(&volume.name)
    }

    /// The request to publish a volume.
    pub fn publish_request(&self, volume: &Volume) -> NodePublishVolumeRequest {
        let group = volume.fs_group.map(|gid| gid.to_string()).unwrap_or_default();
        NodePublishVolumeRequest {
            volume_id: volume.id(),
            target_path: self.target(volume).display().to_string(),
            volume_capability: Some(VolumeCapability {
                access_mode: Some(AccessMode { mode: access_mode::Mode::SingleNodeWriter.into() }),
                access_type: Some(AccessType::Mount(MountVolume {
                    volume_mount_group: group,
                    ..MountVolume::default()
                })),
            }),
            readonly: volume.read_only,
            secrets: volume.secrets.clone().into_iter().collect(),
            volume_context: volume.context().into_iter().collect(),
            ..NodePublishVolumeRequest::default()
        }
    }

    /// Creates the directories of a volume except the target, as a kubelet does before its call.
    ///
    /// # Errors
    /// The system's error.
    pub fn prepare(&self, volume: &Volume) -> Result<()> {
        let folder = self.volume_folder(volume);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("vol_data.json"), "{}")?)
    }

    /// Publishes a volume within [`DEADLINE`], and cleans up after a final error as a kubelet does.
    ///
    /// # Errors
    /// The driver's status.
    pub fn publish(&self, volume: &Volume) -> Result<PathBuf, Status> {
        self.publish_within(volume, DEADLINE)
    }

    /// [`Kubelet::publish`] with another deadline.
    ///
    /// # Errors
    /// The driver's status.
    pub fn publish_within(&self, volume: &Volume, deadline: Duration) -> Result<PathBuf, Status> {
        self.prepare(volume).map_err(|error| Status::internal(error.to_string()))?;
        let sent = self.send(self.publish_request(volume), deadline);
        if let Err(status) = &sent
            && is_final(status.code())
        {
            self.remove_directories(volume);
        }
        sent.map(|()| self.target(volume))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The driver's status.
    pub fn send(&self, request: NodePublishVolumeRequest, deadline: Duration) -> Result<(), Status> {
        self.runtime.block_on(async {
            let mut request = Request::new(request);
            request.set_timeout(deadline);
            NodeClient::new(self.connect().await?).node_publish_volume(request).await.map(drop)
        })
    }

    /// Sends a publish and disconnects after `timeout`, as a kubelet that is killed does.
    pub fn publish_and_disconnect(&self, volume: &Volume, timeout: Duration) -> Result<()> {
        self.prepare(volume)?;
        let request = self.publish_request(volume);
        self.runtime.block_on(async {
            let call = async {
                let mut client = NodeClient::new(self.connect().await?);
                client.node_publish_volume(request).await.map(drop)
            };
            // The response may come before the disconnect.
            let _ = tokio::time::timeout(timeout, call).await;
        });
        Ok(())
    }

    /// Unpublishes a volume and removes its directories, as a kubelet does.
    ///
    /// # Errors
    /// The driver's status.
    pub fn unpublish(&self, volume: &Volume) -> Result<(), Status> {
        let target_path = self.target(volume).display().to_string();
        self.send_unpublish(NodeUnpublishVolumeRequest { volume_id: volume.id(), target_path })?;
        self.remove_directories(volume);
        Ok(())
    }

    /// Sends an unpublish.
    ///
    /// # Errors
    /// The driver's status.
    pub fn send_unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), Status> {
        self.runtime
            .block_on(async { NodeClient::new(self.connect().await?).node_unpublish_volume(request).await.map(drop) })
    }

    /// Removes directories as a kubelet does after a final error or an unpublish: only by rmdir, so
    /// that a mount prevents it.
    fn remove_directories(&self, volume: &Volume) {
        if fs::remove_dir(self.target(volume)).is_ok() || !self.target(volume).exists() {
            let folder = self.volume_folder(volume);
            // A kubelet ignores these errors, too.
            let _ = fs::remove_file(folder.join("vol_data.json"));
            let _ = fs::remove_dir(folder);
        }
    }

    /// Whether the volume's directory is removed, as a kubelet requires before it deletes the pod.
    pub fn has_removed(&self, volume: &Volume) -> bool {
        !self.volume_folder(volume).exists()
    }

    /// Registers a driver as a kubelet does: GetInfo on the registration socket, NodeGetInfo on the
    /// driver's socket, and a report of the outcome.
    ///
    /// # Errors
    /// The driver does not respond.
    pub fn register(&self, registration: &Path) -> Result<PluginInfo> {
        self.runtime.block_on(async {
            let mut client = RegistrationClient::new(connect(registration).await?);
            let info = client.get_info(InfoRequest {}).await?.into_inner();
            NodeClient::new(connect(&self.socket).await?)
                .node_get_info(NodeGetInfoRequest {})
                .await
                .context("NodeGetInfo on the driver's socket")?;
            let status = RegistrationStatus { plugin_registered: true, error: String::new() };
            client.notify_registration_status(status).await?;
            Ok(info)
        })
    }

    /// Reports a failed registration.
    ///
    /// # Errors
    /// The driver does not respond.
    pub fn reject_registration(&self, registration: &Path, error: &str) -> Result<()> {
        self.runtime.block_on(async {
            let mut client = RegistrationClient::new(connect(registration).await?);
            let status = RegistrationStatus { plugin_registered: false, error: error.to_owned() };
            client.notify_registration_status(status).await?;
            Ok(())
        })
    }

    /// A client of the driver's Node service, and the runtime for its calls.
    ///
    /// # Errors
    /// The socket does not accept connections.
    pub fn node(&self) -> Result<(NodeClient<Channel>, &tokio::runtime::Runtime)> {
        let channel = self.runtime.block_on(self.connect())?;
        Ok((NodeClient::new(channel), &self.runtime))
    }

    async fn connect(&self) -> Result<Channel, Status> {
        connect(&self.socket).await.map_err(|error| Status::unavailable(format!("{error:#}")))
    }
}

/// A gRPC channel to a Unix socket.
///
/// # Errors
/// The socket does not accept connections.
pub async fn connect(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            // The kubelet's gRPC library retries while the listener's queue is full.
            let began = std::time::Instant::now();
            loop {
                match UnixStream::connect(&path).await {
                    Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < QUEUE_TIMEOUT => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    connected => return connected.map(TokioIo::new),
                }
            }
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.with_context(|| format!("cannot connect to {}", socket.display()))
}

/// Whether this code is final for a kubelet, so that it removes the directories.
pub fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted | Code::Cancelled
    )
}
