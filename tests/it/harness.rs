//! What every test stands on: one emulator in a private network, vaults and drivers for the asking.
//!
//! A test gets a vault, a tenant and a driver of its own, so that tests run side by side and faults and counters do
//! not mix. Every secret that is handed out is remembered for `leaks`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Azure, Counters, Emulator, Options, Permission, StartError, TokenProxy, TokenProxyOptions};
use keyvault_csi_e2e::driver::{DriverProcess, DriverSetup, Kernel, short_folder};
use keyvault_csi_e2e::kubelet::{DEADLINE, Kubelet, Volume};
use keyvault_csi_e2e::provider::{ProviderProcess, ProviderSetup};
use keyvault_csi_e2e::sandbox;
use tonic::Status;

use crate::{host_directories, matrix};

static HARNESS: OnceLock<Harness> = OnceLock::new();

/// How many vaults the tests may have together; their names must stand in the hosts file before the first test.
const VAULTS: u32 = 1_500;

/// Vaults of Azure's cloud for governments that no test gets by [`Harness::vault`]: for faults that would otherwise meet another test.
pub(crate) const SPARE: u32 = 90;

/// The name of a spare vault.
pub(crate) fn spare(number: u32) -> String {
    format!("kv-spare-{number:02}")
}

/// The suffix and the login host of the custom cloud.
pub(crate) const STACK: (&str, &str) = ("vault.stack.test", "login.stack.test");

/// The suffix and the login host of a cloud that only one test starts, and its address.
pub(crate) const MOVED: (&str, &str, [u8; 4]) = ("vault.moved.test", "login.moved.test", [127, 0, 3, 1]);

pub(crate) struct Harness {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ca: PathBuf,
    emulator: Emulator,
    next: AtomicU32,
    /// Every secret that must not be found anywhere.
    pub(crate) secrets: Mutex<Vec<String>>,
    /// Every text that a caller got from a driver: errors and metrics.
    pub(crate) texts: Mutex<Vec<String>>,
}

/// Moves the process into the harness. Must come before the first thread.
pub(crate) fn enter() {
    let folder = short_folder().unwrap();
    let clouds = ["vault.azure.net", "vault.usgovcloudapi.net", STACK.0];
    let vaults = (0..VAULTS).map(|number| format!("kv-{number:03}.{}", clouds[0]));
    let others =
        clouds[1..].iter().flat_map(|suffix| (0..VAULTS).map(move |number| format!("kv-{number:03}.{suffix}")));
    let logins = ["login.microsoftonline.com", "login.microsoftonline.us", STACK.1].map(str::to_owned);
    let spare = (0..SPARE).map(|number| format!("{}.{}", spare(number), clouds[1]));
    let names: Vec<String> = vaults.chain(others).chain(spare).chain(logins).collect();
    let moved = MOVED.2.map(|byte| byte.to_string()).join(".");
    let hosts = sandbox::hosts_file(names.iter().map(String::as_str));
    let hosts = format!("{hosts}{moved} kv-moved.{} {}\n", MOVED.0, MOVED.1);
    sandbox::enter(folder.path(), &hosts, "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n").unwrap();
    know_no_other_name();
    let emulator = Emulator::start(Options {
        listen: ([127, 0, 0, 1], 443).into(),
        admin: None,
        dns_names: vec![format!("*.{}", STACK.0), STACK.1.to_owned()],
        imds: Some(([169, 254, 169, 254], 80).into()),
        base_latency: Duration::ZERO,
    })
    .unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, emulator.ca_pem()).unwrap();
    let harness =
        Harness { folder, ca, emulator, next: AtomicU32::new(0), secrets: Mutex::default(), texts: Mutex::default() };
    assert!(HARNESS.set(harness).is_ok());
}

/// A name server that knows no name: it answers every question with NXDOMAIN, with SERVFAIL where the name begins so,
/// and not at all where it begins with `silent` (RFC 1035 §4.1.1).
fn know_no_other_name() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if length >= 12 {
                let begins = |word: &[u8]| question[..length].get(13..).is_some_and(|name| name.starts_with(word));
                if begins(b"silent") {
                    continue;
                }
                let fails = begins(b"servfail");
                (question[2], question[3]) = (0x81, if fails { 0x82 } else { 0x83 });
                // A client that has gone needs no answer.
                let _ = socket.send_to(&question[..length], from);
            }
        }
    });
}

pub(crate) fn harness() -> &'static Harness {
    HARNESS.get().expect("main enters the harness")
}

impl Harness {
    pub(crate) fn azure(&self) -> Azure {
        self.emulator.azure()
    }

    /// Starts a cluster's API server and token proxy, for as long as the tests run.
    pub(crate) fn token_proxy(&self, options: &TokenProxyOptions) -> Result<TokenProxy, StartError> {
        self.emulator.start_token_proxy(options)
    }

    /// A number that no other test has.
    fn number(&self) -> u32 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < VAULTS, "raise VAULTS");
        number
    }

    /// A value that is remembered as secret.
    pub(crate) fn secret(&self, about: &str) -> String {
        let mut secrets = self.secrets.lock().unwrap();
        let secret = format!("s3cr3t-{about}-{:08x}", secrets.len().wrapping_mul(0x9E37_79B9));
        secrets.push(secret.clone());
        secret
    }

    /// A text that a driver gave to a caller.
    pub(crate) fn remember(&self, text: &str) {
        self.texts.lock().unwrap().push(text.to_owned());
    }

    /// A vault of Azure's public cloud in a tenant of its own, with one service principal that may read it.
    pub(crate) fn vault(&self) -> Vault {
        self.vault_in("vault.azure.net")
    }

    pub(crate) fn vault_in(&self, suffix: &str) -> Vault {
        self.vault_of(suffix, None)
    }

    /// A vault in a cloud, and of this tenant instead of one of its own.
    pub(crate) fn vault_of(&self, suffix: &str, tenant: Option<&str>) -> Vault {
        let number = self.number();
        let vault = Vault {
            name: format!("kv-{number:03}"),
            suffix: suffix.to_owned(),
            tenant: tenant.map_or_else(|| format!("tenant-{number:03}.example"), str::to_owned),
            client_id: format!("00000000-0000-4000-9000-{number:012}"),
            client_secret: self.secret("client"),
        };
        let azure = self.azure();
        azure.add_tenant(&vault.tenant);
        azure.add_client(&vault.tenant, &vault.client_id, &vault.client_secret);
        azure.add_vault(&vault.name, suffix, &vault.tenant);
        azure.grant(&vault.name, &vault.client_id, &[Permission::Get, Permission::List]);
        vault
    }

    /// How a driver of its own is started, in a folder of its own, with every log level on.
    pub(crate) fn setup(&self) -> DriverSetup {
        let number = self.number();
        let folder = self.folder.path().join(format!("n{number}"));
        fs::create_dir_all(&folder).unwrap();
        let mut setup = DriverSetup {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_keyvault-csi")),
            folder,
            address: format!("127.0.{}.{}", 1 + number / 250, 1 + number % 250),
            ca: self.ca.clone(),
            kubeconfig: None,
            node_id: "node-1".to_owned(),
            // A test that changes a value wants to see it at once; `sharing` has the default.
            flags: vec!["-v=10".to_owned(), "--freshness-window=0s".to_owned()],
            environment: Vec::new(),
            kernel: Kernel::Present,
            largest_file: None,
            descriptors: None,
            kill_at: None,
        };
        host_directories::tell_root(&mut setup);
        setup
    }

    /// The same with a folder for the files of custom clouds, as an administrator mounts one; gives the folder too.
    pub(crate) fn setup_with_clouds(&self) -> Result<(DriverSetup, PathBuf)> {
        let mut setup = self.setup();
        let clouds = setup.folder.join("clouds");
        fs::create_dir_all(&clouds)?;
        setup.flags.push(format!("--cloud-files-dir={}", clouds.display()));
        Ok((setup, clouds))
    }

    /// The same for the program as it is shipped, as the chart starts it; a debug build where `make` named no other.
    pub(crate) fn shipped(&self) -> DriverSetup {
        let mut setup = self.setup();
        if let Some(release) = std::env::var_os("KEYVAULT_CSI_RELEASE") {
            setup.binary = PathBuf::from(release);
        }
        setup.flags.clear();
        setup.environment.push(("MALLOC_ARENA_MAX".to_owned(), "2".to_owned()));
        setup
    }

    /// How a provider of its own is started, in a folder of its own, with every log level on.
    pub(crate) fn provider_setup(&self) -> ProviderSetup {
        let number = self.number();
        let folder = self.folder.path().join(format!("p{number}"));
        fs::create_dir_all(&folder).unwrap();
        let port = |base| base + u16::try_from(number).unwrap();
        ProviderSetup {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_keyvault-csi")),
            providers: folder.join("providers"),
            folder,
            // Below the ports that the system gives to clients.
            ports: [port(20_000), port(22_000)],
            ca: self.ca.clone(),
            flags: vec!["-v=10".to_owned(), "--freshness-window=0s".to_owned()],
            environment: Vec::new(),
        }
    }

    /// A running driver with its kubelet.
    pub(crate) fn node(&self) -> Result<Node> {
        Node::start(self.setup())
    }
}

/// A vault, and who may read it.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    pub(crate) name: String,
    pub(crate) suffix: String,
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

impl Vault {
    /// The vault's host name.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}", self.name, self.suffix)
    }

    /// Sets a secret to a new value and returns the value.
    pub(crate) fn set(&self, name: &str) -> String {
        let value = harness().secret(name);
        harness().azure().set_secret(&self.name, name, &value);
        value
    }

    /// Requests to the vault so far.
    pub(crate) fn counters(&self) -> Counters {
        harness().azure().counters(&self.name)
    }

    /// Requests to the tenant so far.
    pub(crate) fn entra(&self) -> Counters {
        harness().azure().counters(&self.tenant)
    }

    /// The parameters of a class that mounts these secrets.
    pub(crate) fn parameters(&self, secrets: &[&str]) -> BTreeMap<String, String> {
        let objects = secrets.iter().fold("array:\n".to_owned(), |objects, name| {
            objects + "  - |\n    objectName: " + name + "\n    objectType: secret\n"
        });
        self.parameters_of(&objects)
    }

    /// The parameters of a class with this `objects` text.
    pub(crate) fn parameters_of(&self, objects: &str) -> BTreeMap<String, String> {
        [("keyvaultName", self.name.as_str()), ("tenantID", &self.tenant), ("objects", objects)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// A pod's volume with the service principal that may read the vault.
    pub(crate) fn volume(&self, class: &str) -> Volume {
        Volume::of_class("default", "web", class).with_service_principal(&self.client_id, &self.client_secret)
    }
}

/// The file of the custom cloud; its authority's path is that of AD FS where there is one.
pub(crate) fn stack_file(path: &str) -> String {
    let environment = serde_json::json!({
        "name": "AzureStackCloud",
        "activeDirectoryEndpoint": format!("https://{}/{path}", STACK.1),
        "keyVaultEndpoint": format!("https://{}/", STACK.0),
        "keyVaultDNSSuffix": STACK.0,
    });
    environment.to_string()
}

/// A driver with its kubelet.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) driver: DriverProcess,
    pub(crate) kubelet: Kubelet,
    /// What the driver asks instead of its own provider, where `matrix` wants that.
    pub(crate) provider: Option<ProviderProcess>,
}

impl Deref for Node {
    type Target = DriverProcess;

    fn deref(&self) -> &DriverProcess {
        &self.driver
    }
}

impl Node {
    pub(crate) fn start(mut setup: DriverSetup) -> Result<Node> {
        let provider = matrix::provider_beside(&mut setup)?;
        let driver = setup.start()?;
        let kubelet = Kubelet::new(&driver.setup().kubelet_root(), &driver.setup().socket())?;
        Ok(Node { driver, kubelet, provider })
    }

    /// What the driver printed so far, and the provider if it has one beside it.
    pub(crate) fn log(&self) -> String {
        self.driver.log() + &self.provider.as_ref().map(ProviderProcess::log).unwrap_or_default()
    }

    /// The driver's metrics, and those of the provider if it has one beside it.
    pub(crate) fn metrics(&self) -> Result<String> {
        let beside = self.provider.as_ref().map(ProviderProcess::metrics).transpose()?;
        Ok(self.driver.metrics()? + &beside.unwrap_or_default())
    }

    /// Writes a class of the namespace `default` into the driver's manifests.
    pub(crate) fn class(&self, name: &str, parameters: &BTreeMap<String, String>) -> Result<()> {
        self.manifest(&format!("{name}.yaml"), &class_manifest("default", name, Some("azure"), parameters))
    }

    /// Writes a file into the driver's manifests, in one step.
    pub(crate) fn manifest(&self, file: &str, text: &str) -> Result<()> {
        let folder = self.setup().manifests();
        fs::write(folder.join(".new"), text)?;
        Ok(fs::rename(folder.join(".new"), folder.join(file))?)
    }

    /// Publishes as the kubelet does; the error's text is remembered.
    pub(crate) fn publish(&self, volume: &Volume) -> Result<PathBuf, Status> {
        self.publish_within(volume, DEADLINE)
    }

    pub(crate) fn publish_within(&self, volume: &Volume, deadline: Duration) -> Result<PathBuf, Status> {
        let published = self.kubelet.publish_within(volume, deadline);
        // A target that is gone again was never whole; the test says what it wants.
        let _ = matrix::note(&published);
        published.inspect_err(|status| harness().remember(status.message()))
    }

    /// Publishes a volume that must fail; checks that nothing is mounted and nothing left, and returns the status.
    pub(crate) fn refused(&self, volume: &Volume) -> Result<Status> {
        self.refused_within(volume, DEADLINE)
    }

    pub(crate) fn refused_within(&self, volume: &Volume, deadline: Duration) -> Result<Status> {
        let status = self.publish_within(volume, deadline).err().context("the publish succeeded")?;
        let target = self.kubelet.target(volume);
        ensure!(mounts_on(&target)?.is_empty(), "a mount is left after: {status}");
        ensure!(!target.exists(), "{} is left after: {status}", target.display());
        Ok(status)
    }
}

/// A SecretProviderClass manifest.
pub(crate) fn class_manifest(
    namespace: &str,
    name: &str,
    provider: Option<&str>,
    parameters: &BTreeMap<String, String>,
) -> String {
    let mut spec = serde_json::Map::new();
    if let Some(provider) = provider {
        spec.insert("provider".to_owned(), provider.into());
    }
    if !parameters.is_empty() {
        spec.insert("parameters".to_owned(), serde_json::to_value(parameters).unwrap());
    }
    serde_json::json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1",
        "kind": "SecretProviderClass",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
    .to_string()
}

/// The lines of the mount table for this mount point.
pub(crate) fn mounts_on(target: &Path) -> Result<Vec<String>> {
    let target = target.display().to_string().replace(' ', "\\040");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().filter(|line| line.split(' ').nth(1) == Some(&target)).map(str::to_owned).collect())
}
