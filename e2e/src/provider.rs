//! The built binary as a provider, and upstream's driver as its client.
//!
//! The driver encodes its requests as Go does (docs/reference/csi-driver.md#mount-request) and
//! sends them over one connection.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use keyvault_csi_proto::health::HealthCheckRequest;
use keyvault_csi_proto::health::health_client::HealthClient;
use keyvault_csi_proto::provider::csi_driver_provider_client::CsiDriverProviderClient;
use keyvault_csi_proto::provider::{MountRequest, MountResponse, VersionRequest, VersionResponse};
use nix::sys::signal::Signal;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::driver::http_get;
use crate::kubelet::{Volume, connect};
use crate::process::Process;

/// The binary, directories and flags of a provider process.
#[derive(Debug, Clone)]
pub struct ProviderSetup {
    /// The built `keyvault-csi`.
    pub binary: PathBuf,
    /// A directory for this provider, in which `provider.log` is created.
    pub folder: PathBuf,
    /// The directory of provider sockets, in which `azure.sock` is created.
    pub providers: PathBuf,
    /// The ports for health and metrics.
    pub ports: [u16; 2],
    /// The CA bundle that it trusts.
    pub ca: PathBuf,
    /// Additional flags.
    pub flags: Vec<String>,
    /// Additional environment variables.
    pub environment: Vec<(String, String)>,
}

/// A running provider. Dropping it kills it.
#[derive(Debug)]
pub struct ProviderProcess {
    process: Process,
    setup: ProviderSetup,
}

impl ProviderSetup {
    /// The provider's socket.
    pub fn socket(&self) -> PathBuf {
        self.providers.join("azure.sock")
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("provider")
            .arg(format!("--endpoint=unix://{}", self.socket().display()))
            .arg(format!("--healthz-port={}", self.ports[0]))
            .arg(format!("--prometheus-port={}", self.ports[1]))
            .args(&self.flags)
            .env_clear()
            .env("SSL_CERT_FILE", &self.ca)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        command
    }

    /// Creates the directories, starts the provider, and waits until it accepts connections.
    ///
    /// # Errors
    /// It exits, or is not ready in time; the text has its output.
    pub fn start(self) -> Result<ProviderProcess> {
        fs::create_dir_all(&self.providers)?;
        let ready = || UnixStream::connect(self.socket()).is_ok();
        let (process, _) = Process::start(self.command(), &self.folder.join("provider.log"), ready)?;
        Ok(ProviderProcess { process, setup: self })
    }
}

impl ProviderProcess {
    /// The setup that it was started with.
    pub fn setup(&self) -> &ProviderSetup {
        &self.setup
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops it with SIGTERM, as the kubelet does, and waits for its exit.
    ///
    /// # Errors
    /// It does not exit in time.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it, and returns the setup, with which it can be started again.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(self) -> Result<ProviderSetup> {
        self.process.kill()?;
        Ok(self.setup)
    }

    /// The body of `/metrics`.
    ///
    /// # Errors
    /// No connection, or not 200.
    pub fn metrics(&self) -> Result<String> {
        match http_get(&format!("127.0.0.1:{}", self.setup.ports[1]), "/metrics")? {
            (200, body) => Ok(body),
            (status, _) => bail!("/metrics responds with {status}"),
        }
    }

    /// Status code and body of a path on its health address.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        http_get(&format!("127.0.0.1:{}", self.setup.ports[0]), path)
    }
}

/// Upstream's driver as a client, with its one connection to a provider.
#[derive(Debug)]
pub struct UpstreamDriver {
    channel: Channel,
    runtime: tokio::runtime::Runtime,
}

impl UpstreamDriver {
    /// Connects to a provider's socket.
    ///
    /// # Errors
    /// The socket does not accept connections.
    pub fn connect(socket: &Path) -> Result<UpstreamDriver> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(UpstreamDriver { channel: runtime.block_on(connect(socket))?, runtime })
    }

    /// The request for a volume of a class with these parameters.
    pub fn request(parameters: &BTreeMap<String, String>, volume: &Volume) -> MountRequest {
        let mut attributes = parameters.clone();
        attributes.extend(volume.context());
        // If the kubelet sends tokens among the secrets, the driver copies them.
        attributes.extend(
            volume
                .secrets
                .iter()
                .filter(|(key, _)| key.ends_with(".tokens"))
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        MountRequest {
            attributes: go_json(&attributes),
            secrets: if volume.secrets.is_empty() { "null".to_owned() } else { go_json(&volume.secrets) },
            target_path: format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/v/mount", volume.uid),
            permission: "420".to_owned(),
            current_object_version: Vec::new(),
        }
    }

    /// Calls Mount.
    ///
    /// # Errors
    /// The provider's status.
    pub fn mount(&self, request: &MountRequest, deadline: Duration) -> Result<MountResponse, Status> {
        let mut request = Request::new(request.clone());
        request.set_timeout(deadline);
        let mut client = CsiDriverProviderClient::new(self.channel.clone());
        Ok(self.runtime.block_on(client.mount(request))?.into_inner())
    }

    /// Calls Mount, and cancels the call after `timeout`.
    pub fn mount_and_cancel(&self, request: &MountRequest, timeout: Duration) {
        let mut client = CsiDriverProviderClient::new(self.channel.clone());
        self.runtime.block_on(async {
            // The response may come first.
            let _ = tokio::time::timeout(timeout, client.mount(request.clone())).await;
        });
    }

    /// Calls Version.
    ///
    /// # Errors
    /// The provider's status.
    pub fn version(&self) -> Result<VersionResponse, Status> {
        let request = VersionRequest { version: "v1alpha1".to_owned() };
        let mut client = CsiDriverProviderClient::new(self.channel.clone());
        Ok(self.runtime.block_on(client.version(request))?.into_inner())
    }

    /// The serving status of a service, by its name in the protocol.
    ///
    /// # Errors
    /// The provider's status.
    pub fn health(&self, service: &str) -> Result<String, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(self.channel.clone());
        Ok(self.runtime.block_on(client.check(request))?.into_inner().status().as_str_name().to_owned())
    }
}

/// Encodes a map as Go does: sorted, and with the characters of HTML escaped.
fn go_json(map: &BTreeMap<String, String>) -> String {
    let text = serde_json::Value::from_iter(map.clone()).to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
