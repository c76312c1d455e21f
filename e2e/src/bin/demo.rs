//! The demo: a pod's volume is filled from Key Vault and refreshed, without a cluster or Azure.
//!
//! Starts the emulator and the built driver, calls the driver's sockets as a kubelet, and checks
//! every step that it prints. The argument of `demo PATH` is the built `keyvault-csi`; the exit
//! status is 0 only if every check holds.

use std::fmt::Display;
use std::fs;
use std::io::{Write as _, stdout};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Azure, Emulator, Fault, Kind, Options, Permission};
use keyvault_csi_e2e::driver::{DriverProcess, DriverSetup, Kernel, short_folder, wait_for};
use keyvault_csi_e2e::kubelet::{Kubelet, Volume};
use keyvault_csi_e2e::sandbox;

const TENANT: &str = "contoso.example";
const VAULT: &str = "demo-vault";
const CLIENT: (&str, &str) = ("11111111-2222-3333-4444-555555555555", "demo-client-secret");
const LATENCY: Duration = Duration::from_millis(20);
const INTERVAL: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let binary = std::env::args_os().nth(1).map(PathBuf::from).context("usage: demo PATH-OF-keyvault-csi")?;
    let binary = fs::canonicalize(&binary).with_context(|| format!("{} is not built", binary.display()))?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let folder = short_folder()?;
    let vault_host = format!("{VAULT}.vault.azure.net");
    let hosts = sandbox::hosts_file(["login.microsoftonline.com", &vault_host]);
    // First, since only a process with a single thread can enter the namespaces.
    sandbox::enter(folder.path(), &hosts, "")?;

    let mut progress = Progress::new();
    let (emulator, ca) = start_azure(&mut progress, folder.path())?;
    let azure = emulator.azure();
    let (driver, kubelet) = start_driver(&mut progress, binary, folder.path(), ca, &examples)?;
    let first = publish_first(&mut progress, &azure, &kubelet)?;
    publish_again(&mut progress, &azure, &kubelet, &first)?;
    let second = publish_changed(&mut progress, &azure, &kubelet, &first)?;
    refuse_wrong_secret(&mut progress, &kubelet)?;
    let driver = rotate(&mut progress, driver, &kubelet, &[&first, &second])?;
    refresh(&mut progress, &azure, &kubelet, &[&first, &second])?;
    survive_outage(&mut progress, &azure, &driver, &kubelet, &first)?;
    unpublish(&mut progress, &kubelet, &[first, second])?;
    stop(&mut progress, driver, folder.path())?;
    drop(emulator);
    progress.end()
}

fn start_azure(progress: &mut Progress, folder: &Path) -> Result<(Emulator, PathBuf)> {
    progress.step("start the Azure emulator (Entra ID and Key Vault over HTTPS, 20 ms away)")?;
    let emulator = Emulator::start(Options {
        listen: ([127, 0, 0, 1], 443).into(),
        admin: None,
        dns_names: Vec::new(),
        imds: None,
        base_latency: LATENCY,
    })?;
    let ca = folder.join("ca.pem");
    fs::write(&ca, emulator.ca_pem())?;
    let azure = emulator.azure();
    azure.add_tenant(TENANT);
    azure.add_client(TENANT, CLIENT.0, CLIENT.1);
    azure.add_vault(VAULT, "vault.azure.net", TENANT);
    azure.grant(VAULT, CLIENT.0, &[Permission::Get]);
    azure.set_secret(VAULT, "database-password", "correct horse battery staple");
    azure.set_secret(VAULT, "api-token", "first token");
    azure.set_secret(VAULT, "keystore", "AAECAwQF");
    progress.done(format!("https://{VAULT}.vault.azure.net with 3 secrets"))?;
    Ok((emulator, ca))
}

fn start_driver(
    progress: &mut Progress,
    binary: PathBuf,
    folder: &Path,
    ca: PathBuf,
    examples: &Path,
) -> Result<(DriverProcess, Kubelet)> {
    progress.step("start keyvault-csi node, and register it as the kubelet does")?;
    let mut setup = DriverSetup {
        binary,
        folder: folder.join("node"),
        address: "127.0.0.1".to_owned(),
        ca,
        kubeconfig: None,
        node_id: "node-1".to_owned(),
        // So that a second pod gets a new value at once.
        flags: vec!["--freshness-window=0s".to_owned()],
        environment: Vec::new(),
        kernel: Kernel::Present,
        largest_file: None,
        descriptors: None,
        kill_at: None,
    };
    setup.flags.push(format!("--kubelet-root={}", setup.kubelet_root().display()));
    fs::create_dir_all(setup.manifests())?;
    for entry in fs::read_dir(examples)? {
        let entry = entry?;
        fs::copy(entry.path(), setup.manifests().join(entry.file_name()))?;
    }
    let driver = setup.start()?;
    let setup = driver.setup();
    let kubelet = Kubelet::new(&setup.kubelet_root(), &setup.socket())?;
    let info = kubelet.register(&setup.registration_socket())?;
    ensure!(info.name == "secrets-store.csi.k8s.io", "the plugin's name is {}", info.name);
    let (status, body) = driver.health("/readyz")?;
    ensure!(status == 200, "/readyz responds with {status}: {body}");
    progress.done(format!(
        "{} is ready {:.0?} after its start, with {:.1} MiB of memory",
        info.name,
        driver.started_in,
        driver.resident_kib()? as f64 / 1024.0
    ))?;
    Ok((driver, kubelet))
}

fn pod(name: &str) -> Volume {
    Volume::of_class("default", name, "demo").with_service_principal(CLIENT.0, CLIENT.1)
}

fn publish_first(progress: &mut Progress, azure: &Azure, kubelet: &Kubelet) -> Result<Volume> {
    progress.step("pod web-1 starts: NodePublishVolume")?;
    let volume = pod("web-1");
    let began = Instant::now();
    let target = kubelet.publish(&volume)?;
    let took = began.elapsed();
    for (path, mode, content) in [
        ("db/password", 0o440, &b"correct horse battery staple"[..]),
        ("api-token", 0o644, b"first token"),
        ("keystore.bin", 0o644, &[0, 1, 2, 3, 4, 5]),
    ] {
        let file = target.join(path);
        let found = fs::read(&file).with_context(|| format!("{} is missing", file.display()))?;
        ensure!(found == content, "{path} has the wrong content");
        let bits = fs::metadata(&file)?.permissions().mode() & 0o7777;
        ensure!(bits == mode, "{path} has mode {bits:04o} instead of {mode:04o}");
        progress.show(format!("{bits:04o}  {path:<13} {:?}", String::from_utf8_lossy(&found)))?;
    }
    let options = mount_options(&target)?.context("nothing is mounted")?;
    for option in ["nosuid", "nodev", "noexec", "tmpfs", "mode=755", "size="] {
        ensure!(options.contains(option), "the mount lacks {option}: {options}");
    }
    let (gets, tokens) = (azure.counters(VAULT).get(Kind::Get), azure.counters(TENANT).get(Kind::Token));
    ensure!((gets, tokens) == (3, 1), "{gets} GETs and {tokens} token requests instead of 3 and 1");
    progress.done(format!("mounted in {took:.0?} with {tokens} token and {gets} secret requests"))?;
    Ok(volume)
}

fn publish_again(progress: &mut Progress, azure: &Azure, kubelet: &Kubelet, volume: &Volume) -> Result<()> {
    progress.step("the kubelet calls again for the same volume")?;
    let before = azure.counters(VAULT).total() + azure.counters(TENANT).total();
    let began = Instant::now();
    kubelet.publish(volume)?;
    let took = began.elapsed();
    let after = azure.counters(VAULT).total() + azure.counters(TENANT).total();
    ensure!(before == after, "{} requests for a published volume", after - before);
    progress.done(format!("success after {took:.1?}, without a request"))
}

fn publish_changed(progress: &mut Progress, azure: &Azure, kubelet: &Kubelet, first: &Volume) -> Result<Volume> {
    progress.step("a secret changes in the vault, and pod web-2 starts")?;
    azure.set_secret(VAULT, "api-token", "second token");
    let volume = pod("web-2");
    let began = Instant::now();
    let target = kubelet.publish(&volume)?;
    let took = began.elapsed();
    let read = |target: &Path| fs::read_to_string(target.join("api-token"));
    ensure!(read(&target)? == "second token", "web-2 does not have the new value");
    ensure!(read(&kubelet.target(first))? == "first token", "web-1's volume changed, although rotation is off");
    progress.show("web-2  api-token     \"second token\"")?;
    progress.show("web-1  api-token     \"first token\" (rotation is off)")?;
    progress.done(format!("mounted in {took:.0?}"))?;
    Ok(volume)
}

/// The entries of the pods' mounts in the kernel's mount table, which change with every mount.
fn mounts(kubelet: &Kubelet, volumes: &[&Volume]) -> Result<Vec<String>> {
    volumes.iter().map(|volume| mount_options(&kubelet.target(volume))?.context("nothing is mounted")).collect()
}

fn rotate(
    progress: &mut Progress,
    driver: DriverProcess,
    kubelet: &Kubelet,
    volumes: &[&Volume],
) -> Result<DriverProcess> {
    progress.step(format!("rotation is switched on: the driver restarts with a poll interval of {INTERVAL:?}"))?;
    let before = mounts(kubelet, volumes)?;
    let mut setup = driver.setup().clone();
    ensure!(driver.terminate()?.success(), "the driver did not exit with success");
    setup.flags.push("--enable-secret-rotation".to_owned());
    setup.flags.push(format!("--rotation-poll-interval={}s", INTERVAL.as_secs()));
    let driver = setup.start()?;
    for volume in volumes {
        // A kubelet republishes every minute or so, with new credentials.
        kubelet.publish(volume)?;
    }
    ensure!(mounts(kubelet, volumes)? == before, "a restart changed the pods' mounts");
    progress.done("the pods kept their volumes, and the driver has registered them again")?;
    Ok(driver)
}

fn refresh(progress: &mut Progress, azure: &Azure, kubelet: &Kubelet, volumes: &[&Volume]) -> Result<()> {
    progress.step("a secret changes in the vault while the pods run")?;
    let before = mounts(kubelet, volumes)?;
    azure.set_secret(VAULT, "api-token", "third token");
    let began = Instant::now();
    for volume in volumes {
        let file = kubelet.target(volume).join("api-token");
        wait_for("the new value is in the file", 10 * INTERVAL, || Ok(fs::read_to_string(&file)? == "third token"))?;
        progress.show(format!("{}  api-token     \"third token\" after {:.1?}", volume.pod, began.elapsed()))?;
    }
    for volume in volumes {
        let password = fs::read_to_string(kubelet.target(volume).join("db/password"))?;
        ensure!(password == "correct horse battery staple", "another file changed");
    }
    ensure!(mounts(kubelet, volumes)? == before, "a refresh changed the pods' mounts");
    progress.done("no call of the kubelet, no restart, no mount")
}

fn survive_outage(
    progress: &mut Progress,
    azure: &Azure,
    driver: &DriverProcess,
    kubelet: &Kubelet,
    volume: &Volume,
) -> Result<()> {
    progress.step("the vault fails, and recovers with a new value")?;
    azure.add_fault(Fault::new(Action::status(503)).host(VAULT));
    wait_for("the failure is in the metrics", 60 * INTERVAL, || {
        Ok(driver.metrics()?.contains("reason=\"VaultUnavailable\""))
    })?;
    azure.set_secret(VAULT, "api-token", "fourth token");
    kubelet.publish(volume).context("a republish of a mounted volume must succeed")?;
    let file = kubelet.target(volume).join("api-token");
    ensure!(fs::read_to_string(&file)? == "third token", "a failed refresh changed a file");
    progress.show("the pod keeps its files; the kubelet's call succeeds; rotation_reconcile_error_total counts")?;
    azure.clear_faults(VAULT);
    let began = Instant::now();
    wait_for("the new value is in the file", 60 * INTERVAL, || Ok(fs::read_to_string(&file)? == "fourth token"))?;
    progress.done(format!("\"fourth token\" {:.1?} after the vault recovered", began.elapsed()))
}

fn refuse_wrong_secret(progress: &mut Progress, kubelet: &Kubelet) -> Result<()> {
    progress.step("pod web-3 has a wrong client secret")?;
    let volume = Volume::of_class("default", "web-3", "demo").with_service_principal(CLIENT.0, "wrong");
    let status = kubelet.publish(&volume).err().context("a wrong client secret was accepted")?;
    ensure!(status.message().contains("AADSTS7000215"), "the cause is missing: {}", status.message());
    ensure!(kubelet.has_removed(&volume), "the volume's directory was not removed");
    progress.show(format!("event: {}", status.message()))?;
    progress.done("nothing is mounted")
}

fn unpublish(progress: &mut Progress, kubelet: &Kubelet, volumes: &[Volume]) -> Result<()> {
    progress.step("the pods end: NodeUnpublishVolume")?;
    let began = Instant::now();
    for volume in volumes {
        kubelet.unpublish(volume)?;
        kubelet.unpublish(volume).context("a second unpublish must succeed")?;
        ensure!(kubelet.has_removed(volume), "{} was not removed", kubelet.target(volume).display());
    }
    progress.done(format!("files, mounts and directories are removed after {:.0?}", began.elapsed()))
}

fn stop(progress: &mut Progress, driver: DriverProcess, folder: &Path) -> Result<()> {
    progress.step("stop the driver with SIGTERM")?;
    let (socket, id) = (driver.setup().socket(), driver.id());
    let began = Instant::now();
    let status = driver.terminate()?;
    ensure!(status.success(), "the driver exited with {status}");
    ensure!(!socket.exists(), "the socket still exists");
    wait_for("the driver's process has exited", Duration::from_secs(1), || {
        Ok(!Path::new(&format!("/proc/{id}")).exists())
    })?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let kubelets = folder.join("node/kubelet").display().to_string();
    ensure!(!mounts.contains(&kubelets), "a mount was not removed:\n{mounts}");
    progress.done(format!("exited after {:.0?}; no process, mount or socket is left", began.elapsed()))
}

fn mount_options(target: &Path) -> Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let target = target.display().to_string();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&target));
    Ok(line.map(str::to_owned))
}

/// Prints the steps of the demo and their outcomes.
struct Progress {
    began: Instant,
    steps: Vec<String>,
}

impl Progress {
    fn new() -> Progress {
        Progress { began: Instant::now(), steps: Vec::new() }
    }

    fn step(&mut self, title: impl Into<String>) -> Result<()> {
        let title = title.into();
        self.steps.push(title.clone());
        Ok(writeln!(stdout(), "\n{}. {title}", self.steps.len())?)
    }

    fn show(&self, line: impl Display) -> Result<()> {
        Ok(writeln!(stdout(), "     {line}")?)
    }

    fn done(&self, outcome: impl Display) -> Result<()> {
        Ok(writeln!(stdout(), "   ✓ {outcome}")?)
    }

    fn end(self) -> Result<()> {
        writeln!(stdout(), "\n{} steps, each checked, in {:.1?}", self.steps.len(), self.began.elapsed())?;
        Ok(())
    }
}
