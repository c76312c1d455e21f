//! The built binary as a provider, and upstream's driver as far as a provider sees one.
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

/// How to start a provider.
#[derive(Debug, Clone)]
pub struct ProviderSetup {
    /// The built `keyvault-csi`.
    pub binary: PathBuf,
    /// A folder of its own, in which `provider.log` appears.
    pub folder: PathBuf,
    /// The folder in which drivers look for providers; `azure.sock` appears in it.
    pub providers: PathBuf,
    /// The ports of its own for health and metrics.
    pub ports: [u16; 2],
    /// The CA that it trusts.
    pub ca: PathBuf,
    /// More flags.
    pub flags: Vec<String>,
    /// More variables.
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

    /// Makes the folders, starts the provider, and waits until its socket is there.
    ///
    /// # Errors
    /// It ends, or is not there in time; the text has what it printed.
    pub fn start(self) -> Result<ProviderProcess> {
        fs::create_dir_all(&self.providers)?;
        let ready = || UnixStream::connect(self.socket()).is_ok();
        let (process, _) = Process::start(self.command(), &self.folder.join("provider.log"), ready)?;
        Ok(ProviderProcess { process, setup: self })
    }
}

impl ProviderProcess {
    /// How it was started.
    pub fn setup(&self) -> &ProviderSetup {
        &self.setup
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it as Kubernetes does, with SIGTERM, and waits.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it at once, and returns how to start it again in the same folder.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(self) -> Result<ProviderSetup> {
        self.process.kill()?;
        Ok(self.setup)
    }

    /// GETs its metrics.
    ///
    /// # Errors
    /// No connection, or not 200.
    pub fn metrics(&self) -> Result<String> {
        match http_get(&format!("127.0.0.1:{}", self.setup.ports[1]), "/metrics")? {
            (200, body) => Ok(body),
            (status, _) => bail!("/metrics answers {status}"),
        }
    }

    /// GETs a path from its health address: status code and body.
    ///
    /// # Errors
    /// No connection, or no HTTP.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        http_get(&format!("127.0.0.1:{}", self.setup.ports[0]), path)
    }
}

/// Upstream's driver, with its one connection to a provider.
#[derive(Debug)]
pub struct UpstreamDriver {
    channel: Channel,
    runtime: tokio::runtime::Runtime,
}

impl UpstreamDriver {
    /// Connects to a provider's socket.
    ///
    /// # Errors
    /// Nobody accepts.
    pub fn connect(socket: &Path) -> Result<UpstreamDriver> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(UpstreamDriver { channel: runtime.block_on(connect(socket))?, runtime })
    }

    /// What it sends for a volume of a class with these parameters.
    pub fn request(parameters: &BTreeMap<String, String>, volume: &Volume) -> MountRequest {
        let mut attributes = parameters.clone();
        attributes.extend(volume.context());
        // Where the kubelet sends tokens among the secrets, the driver copies them.
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

    /// Calls Mount, and goes away after `patience`.
    pub fn mount_and_hang_up(&self, request: &MountRequest, patience: Duration) {
        let mut client = CsiDriverProviderClient::new(self.channel.clone());
        self.runtime.block_on(async {
            // Whether the answer came first does not matter here.
            let _ = tokio::time::timeout(patience, client.mount(request.clone())).await;
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

    /// Asks gRPC health about a service, and returns the name of the answer.
    ///
    /// # Errors
    /// The provider's status.
    pub fn health(&self, service: &str) -> Result<String, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(self.channel.clone());
        Ok(self.runtime.block_on(client.check(request))?.into_inner().status().as_str_name().to_owned())
    }
}

/// A map as Go's encoder writes it: sorted, and with what matters to HTML escaped.
fn go_json(map: &BTreeMap<String, String>) -> String {
    let text = serde_json::Value::from_iter(map.clone()).to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
