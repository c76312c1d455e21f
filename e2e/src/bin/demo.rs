//! The main job on one machine, without a cluster and without Azure: a pod's volume filled from Key Vault, and refreshed.
//!
//! Starts the emulator and the built driver, acts as the kubelet on the driver's sockets, and checks every step that it
//! prints. `demo PATH` takes the built `keyvault-csi`; it exits with 0 only if every check held.

use std::fmt::Display;
use std::fs;
use std::io::{Write as _, stdout};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Azure, Emulator, Fault, Kind, Options, Permission};
use keyvault_csi_e2e::driver::{DriverProcess, Kernel, Setup, short_folder, wait_for};
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
    // Before anything else: the namespaces want a process with a single thread.
    sandbox::enter(folder.path(), &hosts, "")?;

    let mut story = Story::new();
    let (emulator, ca) = start_azure(&mut story, folder.path())?;
    let azure = emulator.azure();
    let (driver, kubelet) = start_driver(&mut story, binary, folder.path(), ca, &examples)?;
    let first = publish_first(&mut story, &azure, &kubelet)?;
    publish_again(&mut story, &azure, &kubelet, &first)?;
    let second = publish_changed(&mut story, &azure, &kubelet, &first)?;
    refuse_wrong_secret(&mut story, &kubelet)?;
    let driver = rotate(&mut story, driver, &kubelet, &[&first, &second])?;
    refresh(&mut story, &azure, &kubelet, &[&first, &second])?;
    survive_outage(&mut story, &azure, &driver, &kubelet, &first)?;
    unpublish(&mut story, &kubelet, &[first, second])?;
    stop(&mut story, driver, folder.path())?;
    drop(emulator);
    story.end()
}

fn start_azure(story: &mut Story, folder: &Path) -> Result<(Emulator, PathBuf)> {
    story.step("start the Azure emulator (Entra ID and Key Vault over HTTPS, 20 ms away)")?;
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
    story.done(format!("https://{VAULT}.vault.azure.net with 3 secrets"))?;
    Ok((emulator, ca))
}

fn start_driver(
    story: &mut Story,
    binary: PathBuf,
    folder: &Path,
    ca: PathBuf,
    examples: &Path,
) -> Result<(DriverProcess, Kubelet)> {
    story.step("start keyvault-csi node, and register it as the kubelet does")?;
    let mut setup = Setup {
        binary,
        folder: folder.join("node"),
        address: "127.0.0.1".to_owned(),
        ca,
        kubeconfig: None,
        node_id: "node-1".to_owned(),
        // A second pod is to see a new value at once.
        flags: vec!["--freshness-window=0s".to_owned()],
        environment: Vec::new(),
        kernel: Kernel::Present,
        largest_file: None,
        descriptors: None,
        killed_at: None,
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
    ensure!(status == 200, "/readyz answers {status}: {body}");
    story.done(format!(
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

fn publish_first(story: &mut Story, azure: &Azure, kubelet: &Kubelet) -> Result<Volume> {
    story.step("pod web-1 starts: NodePublishVolume")?;
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
        story.show(format!("{bits:04o}  {path:<13} {:?}", String::from_utf8_lossy(&found)))?;
    }
    let options = mount_options(&target)?.context("nothing is mounted")?;
    for wanted in ["nosuid", "nodev", "noexec", "tmpfs", "mode=755", "size="] {
        ensure!(options.contains(wanted), "the mount lacks {wanted}: {options}");
    }
    let (gets, tokens) = (azure.counters(VAULT).get(Kind::Get), azure.counters(TENANT).get(Kind::Token));
    ensure!((gets, tokens) == (3, 1), "{gets} GETs and {tokens} token requests instead of 3 and 1");
    story.done(format!("mounted in {took:.0?} with {tokens} token and {gets} secret requests"))?;
    Ok(volume)
}

fn publish_again(story: &mut Story, azure: &Azure, kubelet: &Kubelet, volume: &Volume) -> Result<()> {
    story.step("the kubelet calls again for the same volume")?;
    let before = azure.counters(VAULT).total() + azure.counters(TENANT).total();
    let began = Instant::now();
    kubelet.publish(volume)?;
    let took = began.elapsed();
    let after = azure.counters(VAULT).total() + azure.counters(TENANT).total();
    ensure!(before == after, "{} requests for a volume that is there", after - before);
    story.done(format!("success after {took:.1?}, without a request"))
}

fn publish_changed(story: &mut Story, azure: &Azure, kubelet: &Kubelet, first: &Volume) -> Result<Volume> {
    story.step("a secret changes in the vault, and pod web-2 starts")?;
    azure.set_secret(VAULT, "api-token", "second token");
    let volume = pod("web-2");
    let began = Instant::now();
    let target = kubelet.publish(&volume)?;
    let took = began.elapsed();
    let read = |target: &Path| fs::read_to_string(target.join("api-token"));
    ensure!(read(&target)? == "second token", "web-2 has not got the new value");
    ensure!(read(&kubelet.target(first))? == "first token", "web-1's volume changed, although rotation is off");
    story.show("web-2  api-token     \"second token\"")?;
    story.show("web-1  api-token     \"first token\" (rotation is off)")?;
    story.done(format!("mounted in {took:.0?}"))?;
    Ok(volume)
}

/// The pods' mounts, as the kernel lists them: equal as long as nobody mounts or unmounts.
fn mounts(kubelet: &Kubelet, volumes: &[&Volume]) -> Result<Vec<String>> {
    volumes.iter().map(|volume| mount_options(&kubelet.target(volume))?.context("nothing is mounted")).collect()
}

fn rotate(story: &mut Story, driver: DriverProcess, kubelet: &Kubelet, volumes: &[&Volume]) -> Result<DriverProcess> {
    story.step(format!("rotation is switched on: the driver restarts with a poll interval of {INTERVAL:?}"))?;
    let before = mounts(kubelet, volumes)?;
    let mut setup = driver.setup().clone();
    ensure!(driver.terminate()?.success(), "the driver did not end well");
    setup.flags.push("--enable-secret-rotation".to_owned());
    setup.flags.push(format!("--rotation-poll-interval={}s", INTERVAL.as_secs()));
    let driver = setup.start()?;
    for volume in volumes {
        // What the kubelet does by itself every minute or so, with fresh credentials.
        kubelet.publish(volume)?;
    }
    ensure!(mounts(kubelet, volumes)? == before, "a restart changed the pods' mounts");
    story.done("the pods kept their volumes, and the driver knows them again")?;
    Ok(driver)
}

fn refresh(story: &mut Story, azure: &Azure, kubelet: &Kubelet, volumes: &[&Volume]) -> Result<()> {
    story.step("a secret changes in the vault, and the pods just run")?;
    let before = mounts(kubelet, volumes)?;
    azure.set_secret(VAULT, "api-token", "third token");
    let began = Instant::now();
    for volume in volumes {
        let file = kubelet.target(volume).join("api-token");
        wait_for("the new value is in the file", 10 * INTERVAL, || Ok(fs::read_to_string(&file)? == "third token"))?;
        story.show(format!("{}  api-token     \"third token\" after {:.1?}", volume.pod, began.elapsed()))?;
    }
    for volume in volumes {
        let password = fs::read_to_string(kubelet.target(volume).join("db/password"))?;
        ensure!(password == "correct horse battery staple", "another file changed");
    }
    ensure!(mounts(kubelet, volumes)? == before, "a refresh changed the pods' mounts");
    story.done("no call of the kubelet, no restart, no mount")
}

fn survive_outage(
    story: &mut Story,
    azure: &Azure,
    driver: &DriverProcess,
    kubelet: &Kubelet,
    volume: &Volume,
) -> Result<()> {
    story.step("the vault fails, and comes back with a new value")?;
    azure.add_fault(Fault::new(Action::status(503)).host(VAULT));
    wait_for("the failure is seen", 60 * INTERVAL, || Ok(driver.metrics()?.contains("reason=\"VaultUnavailable\"")))?;
    azure.set_secret(VAULT, "api-token", "fourth token");
    kubelet.publish(volume).context("a republish of a mounted volume must succeed")?;
    let file = kubelet.target(volume).join("api-token");
    ensure!(fs::read_to_string(&file)? == "third token", "a failed refresh changed a file");
    story.show("the pod keeps its files; the kubelet's call succeeds; rotation_reconcile_error_total counts")?;
    azure.clear_faults(VAULT);
    let began = Instant::now();
    wait_for("the new value is in the file", 60 * INTERVAL, || Ok(fs::read_to_string(&file)? == "fourth token"))?;
    story.done(format!("\"fourth token\" {:.1?} after the vault was back", began.elapsed()))
}

fn refuse_wrong_secret(story: &mut Story, kubelet: &Kubelet) -> Result<()> {
    story.step("pod web-3 brings a wrong client secret")?;
    let volume = Volume::of_class("default", "web-3", "demo").with_service_principal(CLIENT.0, "wrong");
    let status = kubelet.publish(&volume).err().context("a wrong client secret was accepted")?;
    ensure!(status.message().contains("AADSTS7000215"), "the cause is missing: {}", status.message());
    ensure!(kubelet.has_forgotten(&volume), "something was left behind");
    story.show(format!("event: {}", status.message()))?;
    story.done("nothing is mounted")
}

fn unpublish(story: &mut Story, kubelet: &Kubelet, volumes: &[Volume]) -> Result<()> {
    story.step("the pods end: NodeUnpublishVolume")?;
    let began = Instant::now();
    for volume in volumes {
        kubelet.unpublish(volume)?;
        kubelet.unpublish(volume).context("a second unpublish must succeed")?;
        ensure!(kubelet.has_forgotten(volume), "{} was left behind", kubelet.target(volume).display());
    }
    story.done(format!("files, mounts and directories are gone after {:.0?}", began.elapsed()))
}

fn stop(story: &mut Story, driver: DriverProcess, folder: &Path) -> Result<()> {
    story.step("stop the driver with SIGTERM")?;
    let (socket, id) = (driver.setup().socket(), driver.id());
    let began = Instant::now();
    let status = driver.terminate()?;
    ensure!(status.success(), "the driver ended with {status}");
    ensure!(!socket.exists(), "the socket is still there");
    wait_for("the driver's process is gone", Duration::from_secs(1), || {
        Ok(!Path::new(&format!("/proc/{id}")).exists())
    })?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let kubelets = folder.join("node/kubelet").display().to_string();
    ensure!(!mounts.contains(&kubelets), "a mount is left behind:\n{mounts}");
    story.done(format!("ended after {:.0?}; no process, no mount, no socket is left", began.elapsed()))
}

fn mount_options(target: &Path) -> Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let target = target.display().to_string();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&target));
    Ok(line.map(str::to_owned))
}

/// What the demo prints.
struct Story {
    began: Instant,
    steps: Vec<String>,
}

impl Story {
    fn new() -> Story {
        Story { began: Instant::now(), steps: Vec::new() }
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
        writeln!(stdout(), "\n{} steps, every one checked, in {:.1?}", self.steps.len(), self.began.elapsed())?;
        Ok(())
    }
}
