//! The fixture of the tests with recorded answers: a driver and the recorded Azure, in a private
//! network of their own, which each test enters in a process of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use keyvault_csi_e2e::driver::{DriverProcess, DriverSetup, Kernel, short_folder};
use keyvault_csi_e2e::kubelet::{Kubelet, Volume};
use keyvault_csi_e2e::sandbox;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::class_manifest;
use crate::recorded_azure::{self, Answer, RecordedAzure, Request, STACK, VAULT, documents};

pub(crate) const TENANT: &str = "2f6c7e0a-93b1-4c58-8d2e-6a7b5c4d3e2f";
pub(crate) const CLIENT_ID: &str = "5a0b6c1d-4e2f-4a3b-8c7d-9e8f7a6b5c4d";
const CLIENT_SECRET: &str = "recorded-client-secret";

/// The argument that makes the test binary run one test in this fixture's network.
const ROLE: &str = "recorded-test";
/// How long one test may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A driver, its kubelet and the recorded Azure.
pub(crate) struct Fixture {
    pub(crate) azure: RecordedAzure,
    pub(crate) driver: DriverProcess,
    pub(crate) clouds: PathBuf,
    kubelet: Kubelet,
}

/// Trials that run each test in a process of its own, since Azure's names belong to the emulator in
/// the network of this one.
pub(crate) fn isolated(tests: &[crate::Test]) -> Vec<Trial> {
    tests.iter().map(|&(name, _)| crate::trial(name, move || run_in_child(name))).collect()
}

fn run_in_child(name: &str) -> Result<()> {
    // The child cannot remove it: the volumes are mounted until its namespace is gone.
    let folder = short_folder()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([ROLE, name]).arg(folder.path());
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (id, (sender, outputs)) = (child.id(), mpsc::channel());
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = outputs.recv_timeout(PATIENCE) else {
        kill(Pid::from_raw(id.try_into()?), Signal::SIGKILL)?;
        bail!("{name} took longer than {PATIENCE:?}");
    };
    let output = output?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs one test if the command line asks for it.
pub(crate) fn run_test(tests: &[&[crate::Test]]) -> Option<Result<()>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, wanted, _] = &words[..] else {
        return None;
    };
    let (_, test) = tests.iter().copied().flatten().find(|(name, _)| role == ROLE && name == wanted)?;
    Some(test())
}

/// Enters the network, and runs `test` with a driver that has these flags. Afterwards no secret may
/// be in the log.
pub(crate) fn with_driver(flags: &[&str], test: impl FnOnce(&Fixture) -> Result<()>) -> Result<()> {
    let folder = std::env::args_os().nth(3).map(PathBuf::from).context("the folder is the third argument")?;
    let names = recorded_azure::names();
    // No other name resolves: nothing listens on port 53.
    let hosts = sandbox::hosts_file(names.iter().map(String::as_str));
    sandbox::enter(&folder, &hosts, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    let azure = RecordedAzure::start()?;
    let (ca, clouds) = (folder.join("ca.pem"), folder.join("clouds"));
    fs::write(&ca, &azure.ca)?;
    fs::create_dir_all(&clouds)?;
    let mut all = vec!["-v=10".to_owned(), format!("--cloud-files-dir={}", clouds.display())];
    all.extend(flags.iter().map(|&flag| flag.to_owned()));
    let setup = DriverSetup {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_keyvault-csi")),
        folder: folder.join("node"),
        address: "127.0.1.1".to_owned(),
        ca,
        kubeconfig: None,
        node_id: "node-1".to_owned(),
        flags: all,
        environment: Vec::new(),
        kernel: Kernel::Present,
        largest_file: None,
        descriptors: None,
        kill_at: None,
    };
    fs::create_dir_all(&setup.folder)?;
    let kubelet = Kubelet::new(&setup.kubelet_root(), &setup.socket())?;
    let fixture = Fixture { azure, driver: setup.start()?, clouds, kubelet };
    test(&fixture).with_context(|| format!("requests: {:#?}", fixture.azure.lines()))?;
    fixture.check_log()
}

impl Fixture {
    /// Writes the class `demo`: this vault in the public cloud, and other parameters.
    pub(crate) fn class(&self, vault: &str, more: &[(&str, &str)], objects: &str) -> Result<()> {
        let mut parameters = BTreeMap::from([("keyvaultName", vault), ("tenantID", TENANT), ("objects", objects)]);
        parameters.extend(more.iter().copied());
        let parameters = parameters.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (folder, text) =
            (self.driver.setup().manifests(), class_manifest("default", "demo", Some("azure"), &parameters));
        fs::write(folder.join(".new"), text)?;
        Ok(fs::rename(folder.join(".new"), folder.join("demo.yaml"))?)
    }

    /// The class `demo` with the recorded vault of an Azure Stack Hub, whose cloud has this
    /// `keyVaultEndpoint`.
    pub(crate) fn stack_class(&self, login: &str, endpoint: &str, tenant: &str) -> Result<()> {
        let cloud = serde_json::json!({
            "activeDirectoryEndpoint": format!("https://{login}/"),
            "keyVaultEndpoint": endpoint,
            "keyVaultDNSSuffix": STACK.1,
        });
        fs::write(self.clouds.join("stack.json"), cloud.to_string())?;
        let more = [("cloudName", "AzureStackCloud"), ("cloudEnvFileName", "stack.json"), ("tenantID", tenant)];
        self.class(VAULT, &more, &secret("pem"))
    }

    /// Publishes a volume, and returns its directory.
    pub(crate) fn publish(&self, volume: &Volume) -> Result<PathBuf> {
        self.kubelet.publish(volume).map_err(|status| anyhow::anyhow!("{status}"))
    }

    /// The text of the error of a publish, which must be one line of printable characters.
    fn refused(&self, volume: &Volume) -> Result<String> {
        let published = self.kubelet.publish_within(volume, Duration::from_secs(8));
        let text = published.err().context("the publish succeeded")?.message().to_owned();
        ensure!(text.len() < 1_200 && !text.chars().any(char::is_control), "{} bytes: {text:?}", text.len());
        Ok(text)
    }

    /// The text of an error about the secret `pem` without its beginning, which is always the same.
    pub(crate) fn cause(&self, volume: &Volume) -> Result<String> {
        let text = self.refused(volume)?;
        let cause = text.strip_prefix(
            "failed to mount secrets store objects for pod default/web: SecretProviderClass default/demo, secret/pem: ",
        );
        Ok(cause.with_context(|| format!("another beginning: {text}"))?.to_owned())
    }

    /// Neither log nor metrics have a token, a client secret or the key of a certificate.
    fn check_log(&self) -> Result<()> {
        let texts = self.driver.log() + &self.driver.metrics()?;
        ensure!(texts.contains("exchange"), "the log is not that of a driver at the highest level");
        let mut secrets = vec![CLIENT_SECRET.to_owned(), "recorded-token".to_owned(), "recorded-value".to_owned()];
        let values = documents().into_values().filter_map(|document| Some(document["value"].as_str()?.to_owned()));
        secrets.extend(values.map(|value| value.chars().skip(60).take(40).collect()));
        secrets.extend(key_lines());
        for secret in secrets.iter().filter(|secret| secret.len() > 8) {
            ensure!(!texts.contains(secret.as_str()), "the log or the metrics have {secret:.12}…");
        }
        Ok(())
    }
}

fn key_lines() -> Vec<String> {
    let keys = [include_str!("fixtures/azure/exportable.key.pem"), include_str!("fixtures/azure/pem.key.pem")];
    keys.iter().flat_map(|key| key.lines().filter(|line| !line.starts_with('-'))).map(str::to_owned).collect()
}

/// A volume of a new pod with the class `demo`.
pub(crate) fn pod() -> Volume {
    Volume::of_class("default", "web", "demo")
}

/// The same with the service principal.
pub(crate) fn pod_of_application() -> Volume {
    pod_of(CLIENT_ID)
}

/// The same with another service principal.
pub(crate) fn pod_of(client_id: &str) -> Volume {
    pod().with_service_principal(client_id, CLIENT_SECRET)
}

/// The client ID of another identity for each number.
pub(crate) fn client(number: usize) -> String {
    assert!(number < 10, "one digit");
    format!("{}{number}", &CLIENT_ID[..CLIENT_ID.len() - 1])
}

/// The `objects` of a class with one secret.
pub(crate) fn secret(name: &str) -> String {
    objects(&[&format!("objectName: {name}\nobjectType: secret")])
}

/// The `objects` of a class with these mappings.
pub(crate) fn objects(mappings: &[&str]) -> String {
    mappings.iter().fold("array:\n".to_owned(), |all, mapping| {
        all + "  - |\n" + &mapping.lines().map(|line| format!("    {line}\n")).collect::<String>()
    })
}

/// What the recorded services answer in the normal case: a challenge to requests without a token, a
/// token, and the vault's documents.
pub(crate) fn normal(request: &Request) -> Option<Answer> {
    let is_vault = request.host.contains(".vault.");
    match (request.method.as_str(), &request.authorization) {
        ("GET", None) if is_vault => Some(Answer::vault("challenge")),
        ("GET", Some(token)) if is_vault && token.starts_with("Bearer recorded-token-of-") => {
            Answer::document(&request.path)
        }
        ("POST", None) if request.path == "/adfs/oauth2/token" => Some(Answer::recorded("token-adfs")),
        ("POST", None) if request.path == format!("/{TENANT}/oauth2/v2.0/token") => Some(Answer::recorded("token")),
        ("GET", None) if request.path == "/metadata/identity/oauth2/token" => Some(Answer::recorded("token-imds")),
        _ => None,
    }
}
