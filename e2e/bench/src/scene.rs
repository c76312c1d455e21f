//! What is measured against: Azure so many milliseconds away, an API server with classes, and drivers one after another.
//!
//! Vaults, classes and service principals have numbers, as `load` counts them. Every driver has a user of its own, so that the audit
//! log tells its calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Azure, Emulator, Options, Permission};
use keyvault_csi_apiserver::{Account, CLASSES, PORT, Server, User};
use keyvault_csi_e2e::driver::{DriverProcess, Kernel, Setup, short_folder, wait_for};
use keyvault_csi_e2e::kubelet::Kubelet;
use keyvault_csi_e2e::load::{class, principal};
use keyvault_csi_e2e::sandbox;
use serde_json::{Value, json};

use super::process;

/// Service principals that the vault of all knows.
pub(crate) const PRINCIPALS: usize = 1_100;
/// Vaults with one class and one service principal each.
pub(crate) const VAULTS: usize = 200;
/// The first of their classes.
pub(crate) const APART: usize = 1_000;
/// Classes of ten objects in the vault of all.
pub(crate) const TENS: usize = 100;
/// Classes of one object and of fifty.
pub(crate) const ONE: usize = 2_000;
pub(crate) const FIFTY: usize = 2_001;

pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
const TENANT: &str = "contoso.example";
const VAULT: &str = "bench";
const DRIVERS: usize = 200;

pub(crate) struct Scene {
    // Before the folder, so that nobody is left when it goes.
    emulator: Emulator,
    server: Server,
    binary: PathBuf,
    load: PathBuf,
    folder: tempfile::TempDir,
    next: AtomicUsize,
}

/// A driver that runs, and who it is for the API server.
pub(crate) struct Driver<'a> {
    pub(crate) process: DriverProcess,
    /// From its start until a kubelet has registered it.
    pub(crate) registered: Duration,
    scene: &'a Scene,
    user: User,
    kubelet: PathBuf,
}

impl Scene {
    /// Moves this process into a network of its own, where everything is.
    pub(crate) fn enter(binary: PathBuf, load: PathBuf) -> Result<Scene> {
        let folder = short_folder()?;
        let names: Vec<String> = (0..VAULTS).map(apart).chain([VAULT.to_owned()]).collect();
        let hosts: Vec<String> = names.iter().map(|name| format!("{name}.vault.azure.net")).collect();
        let hosts = hosts.iter().map(String::as_str).chain(["login.microsoftonline.com"]);
        sandbox::enter(folder.path(), &sandbox::hosts_file(hosts), "")?;
        let listen = ([127, 0, 0, 1], 443).into();
        let emulator = Emulator::start(Options { listen, ..Options::loopback() })?;
        fs::write(folder.path().join("ca.pem"), emulator.ca_pem())?;
        let accounts = (0..DRIVERS).map(|number| Account { name: user(number), group: "system:masters".to_owned() });
        let server = Server::start(&folder.path().join("cluster"), &accounts.collect::<Vec<_>>())?;
        Ok(Scene { emulator, server, binary, load, folder, next: AtomicUsize::new(0) })
    }

    pub(crate) fn azure(&self) -> Azure {
        self.emulator.azure()
    }

    /// Puts Azure so far away.
    pub(crate) fn away(&self, latency: Duration) {
        self.azure().set_base_latency(latency);
    }

    /// Requests so far: to Entra ID, to the vault of all, and of those the ones that fetched a secret.
    pub(crate) fn requests(&self) -> [u64; 3] {
        let vault = self.azure().counters(VAULT);
        [self.azure().counters(TENANT).total(), vault.total(), vault.get(azure_emulator::Kind::Get)]
    }

    /// The most requests that came to the vault of all within a second, of those still in the journal.
    pub(crate) fn busiest_second(&self) -> usize {
        let journal = self.azure().journal();
        let mut arrived: Vec<i64> =
            journal.iter().filter(|entry| entry.service == VAULT).map(|entry| entry.arrived_ms).collect();
        arrived.sort_unstable();
        let within = |(at, from): (usize, &i64)| arrived[at..].iter().take_while(|to| **to < from + 1_000).count();
        arrived.iter().enumerate().map(within).max().unwrap_or_default()
    }

    /// Makes all vaults, classes and service principals.
    pub(crate) fn fill(&self) -> Result<()> {
        let azure = self.azure();
        azure.add_tenant(TENANT);
        azure.add_vault(VAULT, "vault.azure.net", TENANT);
        for number in 0..PRINCIPALS {
            let (id, secret) = principal(number);
            azure.add_client(TENANT, &id, &secret);
            azure.grant(VAULT, &id, &[Permission::Get]);
        }
        for number in 0..TENS {
            self.class(number, VAULT, 10)?;
        }
        self.class(ONE, VAULT, 1)?;
        self.class(FIFTY, VAULT, 50)?;
        for number in 0..VAULTS {
            azure.add_vault(&apart(number), "vault.azure.net", TENANT);
            azure.grant(&apart(number), &principal(number).0, &[Permission::Get]);
            self.class(APART + number, &apart(number), 10)?;
        }
        Ok(())
    }

    fn class(&self, number: usize, vault: &str, objects: usize) -> Result<()> {
        let names: Vec<String> = (0..objects).map(|object| format!("object-{number}-{object}")).collect();
        let entries = names.iter().fold("array:\n".to_owned(), |text, name| {
            self.azure().set_secret(vault, name, &format!("the value of {name}"));
            text + "  - |\n    objectName: " + name + "\n    objectType: secret\n"
        });
        let parameters = json!({ "keyvaultName": vault, "tenantID": TENANT, "objects": entries });
        let spec = json!({ "provider": "azure", "parameters": parameters });
        self.server.create(CLASSES, Some("default"), json!({ "metadata": { "name": class(number) }, "spec": spec }))?;
        Ok(())
    }

    /// A driver that nobody else uses, registered and with all classes listed.
    pub(crate) fn driver(&self, flags: &[&str]) -> Result<Driver<'_>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ensure!(number < DRIVERS, "raise DRIVERS");
        let user = self.server.user(&user(number), PORT)?;
        let mut setup = Setup {
            binary: self.binary.clone(),
            folder: self.folder.path().join(format!("d{number}")),
            address: format!("127.0.1.{}", 1 + number),
            ca: self.folder.path().join("ca.pem"),
            kubeconfig: Some(user.kubeconfig.clone()),
            node_id: format!("node-{number}"),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            environment: vec![("MALLOC_ARENA_MAX".to_owned(), "2".to_owned())],
            kernel: Kernel::Present,
            largest_file: None,
            descriptors: None,
            killed_at: None,
        };
        let kubelet = setup.kubelet_root();
        // As the chart has it.
        setup.flags.push(format!("--kubelet-root={}", kubelet.display()));
        let began = Instant::now();
        let process = setup.start()?;
        Kubelet::new(&kubelet, &process.setup().socket())?.register(&process.setup().registration_socket())?;
        let registered = began.elapsed();
        let driver = Driver { process, registered, scene: self, user, kubelet };
        wait_for("the classes are listed", PATIENCE, || {
            Ok(driver.process.log().contains("secretproviderclasses listed"))
        })?;
        Ok(driver)
    }
}

/// Pods in numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pods {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) concurrency: usize,
    pub(crate) objects: usize,
    /// How many classes, from which number on.
    pub(crate) classes: (usize, usize),
    /// How many service principals, from which number on.
    pub(crate) identities: (usize, usize),
    /// Milliseconds between the starts of two calls.
    pub(crate) pause: usize,
}

impl Pods {
    /// So many pods of one class of ten objects and one service principal, so many at a time.
    pub(crate) fn alike(count: usize, concurrency: usize) -> Pods {
        Pods { first: 0, count, concurrency, objects: 10, classes: (1, 0), identities: (1, 0), pause: 0 }
    }
}

impl Driver<'_> {
    /// Starts pods by the program `load`; its figures.
    pub(crate) fn start(&self, pods: Pods) -> Result<Value> {
        let Pods { first, count, concurrency, objects, classes, identities, pause } = pods;
        let mut command = Command::new(&self.scene.load);
        command.arg("--socket").arg(self.process.setup().socket()).arg("--root").arg(&self.kubelet);
        command.arg("--prefix").arg(&self.process.setup().node_id);
        for (flag, number) in [
            ("first", first),
            ("count", count),
            ("concurrency", concurrency),
            ("objects", objects),
            ("classes", classes.0),
            ("first-class", classes.1),
            ("identities", identities.0),
            ("first-identity", identities.1),
            ("pause", pause),
        ] {
            command.arg(format!("--{flag}={number}"));
        }
        let output = command.output().context("the load client")?;
        let log = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}\n{}", log(), self.process.log());
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub(crate) fn memory(&self) -> Result<[f64; 2]> {
        process::memory(self.process.id())
    }

    pub(crate) fn cpu(&self) -> Result<f64> {
        process::cpu(self.process.id())
    }

    /// How often it called the API server about our kinds, events and pods, by verb and kind.
    pub(crate) fn calls(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for call in self.scene.server.calls(&self.user)? {
            *counts.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
        }
        Ok(counts)
    }

    /// How often it wrote to the API server.
    pub(crate) fn writes(&self) -> Result<usize> {
        let reads = |call: &str| ["get ", "list ", "watch "].iter().any(|verb| call.starts_with(verb));
        Ok(self.calls()?.iter().filter(|(call, _)| !reads(call)).map(|(_, count)| count).sum())
    }

    /// The sum of a metric's series; 0 without one.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let text = self.process.metrics()?;
        let fits = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        Ok(text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

fn user(number: usize) -> String {
    format!("driver-{number}")
}

/// The name of a vault with one class.
fn apart(number: usize) -> String {
    format!("apart-{number:03}")
}
