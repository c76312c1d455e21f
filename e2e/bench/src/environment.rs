//! The environment of the measurements: an emulator with a latency, an API server with classes, and
//! drivers one after the other.
//!
//! Vaults, classes and service principals have the numbers that `load` uses. Every driver is a
//! separate user of the API server, so that the audit log has its calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Azure, Emulator, Options, Permission};
use keyvault_csi_apiserver::{Account, CLASSES, PORT, Server, User};
use keyvault_csi_e2e::driver::{DriverProcess, DriverSetup, Kernel, short_folder, wait_for};
use keyvault_csi_e2e::kubelet::Kubelet;
use keyvault_csi_e2e::load::{class, principal};
use keyvault_csi_e2e::sandbox;
use serde_json::{Value, json};

use crate::process;

/// The number of service principals with access to the shared vault.
pub(crate) const PRINCIPALS: usize = 1_100;
/// The number of separate vaults, each with one class and one service principal.
pub(crate) const VAULTS: usize = 200;
/// The first class of the separate vaults.
pub(crate) const SEPARATE: usize = 1_000;
/// The number of classes with ten objects in the shared vault.
pub(crate) const TENS: usize = 100;
/// The classes with one object and with fifty.
pub(crate) const ONE: usize = 2_000;
pub(crate) const FIFTY: usize = 2_001;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);
const TENANT: &str = "contoso.example";
const VAULT: &str = "bench";
const DRIVERS: usize = 200;

pub(crate) struct Environment {
    // Declared before the directory, so that these are dropped before it is removed.
    emulator: Emulator,
    server: Server,
    binary: PathBuf,
    load: PathBuf,
    folder: tempfile::TempDir,
    next: AtomicUsize,
}

/// A running driver, with its user of the API server.
pub(crate) struct Driver<'a> {
    pub(crate) process: DriverProcess,
    /// The time from its start to its registration.
    pub(crate) registered: Duration,
    environment: &'a Environment,
    user: User,
    kubelet: PathBuf,
}

impl Environment {
    /// Moves this process into a network namespace, and starts the emulator and the API server
    /// there.
    pub(crate) fn enter(binary: PathBuf, load: PathBuf) -> Result<Environment> {
        let folder = short_folder()?;
        let names: Vec<String> = (0..VAULTS).map(separate_vault).chain([VAULT.to_owned()]).collect();
        let hosts: Vec<String> = names.iter().map(|name| format!("{name}.vault.azure.net")).collect();
        let hosts = hosts.iter().map(String::as_str).chain(["login.microsoftonline.com"]);
        sandbox::enter(folder.path(), &sandbox::hosts_file(hosts), "")?;
        let listen = ([127, 0, 0, 1], 443).into();
        let emulator = Emulator::start(Options { listen, ..Options::loopback() })?;
        fs::write(folder.path().join("ca.pem"), emulator.ca_pem())?;
        let accounts = (0..DRIVERS).map(|number| Account { name: user(number), group: "system:masters".to_owned() });
        let server = Server::start(&folder.path().join("cluster"), &accounts.collect::<Vec<_>>())?;
        Ok(Environment { emulator, server, binary, load, folder, next: AtomicUsize::new(0) })
    }

    pub(crate) fn azure(&self) -> Azure {
        self.emulator.azure()
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.azure().set_base_latency(latency);
    }

    /// Requests so far: to Entra ID, to the shared vault, and of the latter those for a secret.
    pub(crate) fn requests(&self) -> [u64; 3] {
        let vault = self.azure().counters(VAULT);
        [self.azure().counters(TENANT).total(), vault.total(), vault.get(azure_emulator::Kind::Get)]
    }

    /// The most requests to the shared vault within a second, of those in the journal.
    pub(crate) fn busiest_second(&self) -> usize {
        let journal = self.azure().journal();
        let mut arrived: Vec<i64> =
            journal.iter().filter(|entry| entry.service == VAULT).map(|entry| entry.arrived_ms).collect();
        arrived.sort_unstable();
        let within = |(at, from): (usize, &i64)| arrived[at..].iter().take_while(|to| **to < from + 1_000).count();
        arrived.iter().enumerate().map(within).max().unwrap_or_default()
    }

    /// Creates all vaults, classes and service principals.
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
            azure.add_vault(&separate_vault(number), "vault.azure.net", TENANT);
            azure.grant(&separate_vault(number), &principal(number).0, &[Permission::Get]);
            self.class(SEPARATE + number, &separate_vault(number), 10)?;
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

    /// Starts a driver, registers it, and waits until it has listed the classes.
    pub(crate) fn driver(&self, flags: &[&str]) -> Result<Driver<'_>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ensure!(number < DRIVERS, "raise DRIVERS");
        let user = self.server.user(&user(number), PORT)?;
        let mut setup = DriverSetup {
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
            kill_at: None,
        };
        let kubelet = setup.kubelet_root();
        // As the chart sets it.
        setup.flags.push(format!("--kubelet-root={}", kubelet.display()));
        let began = Instant::now();
        let process = setup.start()?;
        Kubelet::new(&kubelet, &process.setup().socket())?.register(&process.setup().registration_socket())?;
        let registered = began.elapsed();
        let driver = Driver { process, registered, environment: self, user, kubelet };
        wait_for("the classes are listed", TIMEOUT, || {
            Ok(driver.process.log().contains("secretproviderclasses listed"))
        })?;
        Ok(driver)
    }
}

/// The arguments of the program `load`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pods {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) concurrency: usize,
    pub(crate) objects: usize,
    /// The number of classes, and the first of them.
    pub(crate) classes: (usize, usize),
    /// The number of service principals, and the first of them.
    pub(crate) identities: (usize, usize),
    /// Milliseconds between the starts of two calls.
    pub(crate) pause: usize,
}

impl Pods {
    /// Pods with the same class of ten objects and the same service principal.
    pub(crate) fn alike(count: usize, concurrency: usize) -> Pods {
        Pods { first: 0, count, concurrency, objects: 10, classes: (1, 0), identities: (1, 0), pause: 0 }
    }
}

impl Driver<'_> {
    /// Starts pods by the program `load`, and returns its figures.
    pub(crate) fn start(&self, pods: Pods) -> Result<Value> {
        let Pods { first, count, concurrency, objects, classes, identities, pause } = pods;
        let mut command = Command::new(&self.environment.load);
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

    /// The number of its calls to the API server, by verb and resource.
    pub(crate) fn calls(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for call in self.environment.server.calls(&self.user)? {
            *counts.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
        }
        Ok(counts)
    }

    /// The number of its writes to the API server.
    pub(crate) fn writes(&self) -> Result<usize> {
        let reads = |call: &str| ["get ", "list ", "watch "].iter().any(|verb| call.starts_with(verb));
        Ok(self.calls()?.iter().filter(|(call, _)| !reads(call)).map(|(_, count)| count).sum())
    }

    /// The sum of the series of a metric; 0 without a series.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let text = self.process.metrics()?;
        let fits = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        Ok(text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

fn user(number: usize) -> String {
    format!("driver-{number}")
}

fn separate_vault(number: usize) -> String {
    format!("separate-{number:03}")
}
