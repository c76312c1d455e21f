//! The harness of every test: one Azure emulator in a private network, and a vault, an Entra tenant
//! and a driver for each test.
//!
//! Tests run in parallel, and share neither faults nor counters. The harness records
//! every secret that it hands out, and every text that a driver returns: `leaks`
//! searches the second for the first.

mod environment;
mod external_provider;
mod name_server;
mod node;
mod setup;
mod vault;

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use azure_emulator::{Azure, Emulator, Options, StartError, TokenProxy, TokenProxyOptions};
use keyvault_csi_e2e::driver::short_folder;
use keyvault_csi_e2e::sandbox;

pub(crate) use environment::{has_external_provider, take_outcomes, tree, with_external_provider, with_kubelet_root};
pub(crate) use node::{Node, class_manifest, mounts_on};
pub(crate) use setup::{kubelet_root_flag, provider_dirs, set_provider_dirs};
pub(crate) use vault::{Vault, stack_file};

static HARNESS: OnceLock<Harness> = OnceLock::new();

/// How many vaults all tests together may have:
/// the hosts file has their names before the first test starts.
const VAULTS: u32 = 1_500;

/// Vaults of Azure's government cloud that [`Harness::vault`] never returns: for faults that must
/// not reach other tests.
pub(crate) const SPARE_VAULTS: u32 = 90;

pub(crate) fn spare_vault(number: u32) -> String {
    format!("kv-spare-{number:02}")
}

/// The suffix and the login host of the custom cloud.
pub(crate) const STACK: (&str, &str) = ("vault.stack.test", "login.stack.test");

/// The suffix, the login host and the address of a cloud that is down until one test starts it.
pub(crate) const MOVED: (&str, &str, [u8; 4]) = ("vault.moved.test", "login.moved.test", [127, 0, 3, 1]);

pub(crate) struct Harness {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ca: PathBuf,
    emulator: Emulator,
    next: AtomicU32,
    /// Every secret that must not appear in logs, errors, metrics and files.
    pub(crate) secrets: Mutex<Vec<String>>,
    /// Every text that a driver returned: errors and metrics.
    pub(crate) texts: Mutex<Vec<String>>,
    pages: Mutex<Pages>,
}

/// Pages of metrics: each has a series that none before it has.
#[derive(Debug, Default)]
struct Pages {
    texts: Vec<String>,
    series: HashSet<String>,
}

/// Moves the process into a private network with the emulator. The process must have one thread.
pub(crate) fn enter() {
    let folder = short_folder().unwrap();
    sandbox::enter(folder.path(), &hosts_file(), "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n").unwrap();
    name_server::start();
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
    let harness = Harness {
        folder,
        ca,
        emulator,
        next: AtomicU32::new(0),
        secrets: Mutex::default(),
        texts: Mutex::default(),
        pages: Mutex::default(),
    };
    assert!(HARNESS.set(harness).is_ok());
}

/// Removes the folder of all tests, or keeps it for a look after a failure.
pub(crate) fn leave(failed: bool) {
    let Some(harness) = HARNESS.get() else { return };
    let folder = harness.folder.path();
    let mut out = std::io::stdout();
    if failed {
        let _ = writeln!(out, "the files of the tests are in {}", folder.display());
    } else if let Err(error) = node::detach_below(folder).and_then(|()| Ok(fs::remove_dir_all(folder)?)) {
        let _ = writeln!(out, "cannot remove {}: {error:#}", folder.display());
    }
}

/// The names of all vaults and login hosts.
fn hosts_file() -> String {
    let clouds = ["vault.azure.net", "vault.usgovcloudapi.net", STACK.0];
    let vaults = clouds.iter().flat_map(|suffix| (0..VAULTS).map(move |number| format!("kv-{number:03}.{suffix}")));
    let logins = ["login.microsoftonline.com", "login.microsoftonline.us", STACK.1].map(str::to_owned);
    let spare = (0..SPARE_VAULTS).map(|number| format!("{}.{}", spare_vault(number), clouds[1]));
    let names: Vec<String> = vaults.chain(spare).chain(logins).collect();
    let moved = MOVED.2.map(|byte| byte.to_string()).join(".");
    let hosts = sandbox::hosts_file(names.iter().map(String::as_str));
    format!("{hosts}{moved} kv-moved.{} {}\n", MOVED.0, MOVED.1)
}

pub(crate) fn harness() -> &'static Harness {
    HARNESS.get().expect("main enters the harness")
}

impl Harness {
    pub(crate) fn azure(&self) -> Azure {
        self.emulator.azure()
    }

    /// Starts a cluster's API server and token proxy, which run until the process exits.
    pub(crate) fn token_proxy(&self, options: &TokenProxyOptions) -> Result<TokenProxy, StartError> {
        self.emulator.start_token_proxy(options)
    }

    /// A number that no other vault, driver or provider has.
    fn next_number(&self) -> u32 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < VAULTS, "raise VAULTS");
        number
    }

    /// A new secret value, recorded for `leaks`.
    pub(crate) fn secret(&self, label: &str) -> String {
        let mut secrets = self.secrets.lock().unwrap();
        let secret = format!("s3cr3t-{label}-{:08x}", secrets.len().wrapping_mul(0x9E37_79B9));
        secrets.push(secret.clone());
        secret
    }

    /// Records a text that a driver returned, for `leaks`.
    pub(crate) fn remember(&self, text: &str) {
        self.texts.lock().unwrap().push(text.to_owned());
    }

    /// Records a page of metrics if it has a new series.
    fn record_page(&self, text: &str) {
        let mut pages = self.pages.lock().unwrap();
        let series = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0));
        let new: Vec<String> = series
            .filter(|series| !series.starts_with('#') && !pages.series.contains(*series))
            .map(str::to_owned)
            .collect();
        if !new.is_empty() {
            pages.series.extend(new);
            pages.texts.push(text.to_owned());
        }
    }

    /// The recorded pages, which together have each series that a test saw.
    pub(crate) fn pages(&self) -> Vec<String> {
        self.pages.lock().unwrap().texts.clone()
    }
}
