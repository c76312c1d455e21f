//! Runs each test of the Azure provider twice: with the built-in provider, and with
//! `--azure-provider=external` and our provider behind its socket. The outcomes of the publishes
//! must be equal: paths, modes and reasons, one by one.
//!
//! Contents differ between runs, since values are random; the tests assert them, and
//! `provider_parity` compares the bytes of one vault.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::Setup;
use keyvault_csi_e2e::provider::ProviderProcess;
use libtest_mimic::Trial;
use tonic::Status;

use crate::external_fixture::{folders, look_there};
use crate::harness::harness;
use crate::{
    azure, certificates, cloud_files, identities, identity_binding, networks, objects, publish, refusals, scenarios,
    sharing, troubleshooting,
};

const TESTS: &[&[crate::Test]] = &[
    azure::TESTS,
    certificates::TESTS,
    cloud_files::TESTS,
    identities::TESTS,
    identity_binding::TESTS,
    networks::TESTS,
    objects::TESTS,
    publish::TESTS,
    refusals::TESTS,
    scenarios::TESTS,
    sharing::TESTS,
    troubleshooting::TESTS,
];

/// The flags that both roles have. A driver that does not fetch needs none of them; they go to the
/// provider.
const FETCHING: &[&str] = &[
    "-v",
    "--cloud-file",
    "--cloud-files-dir",
    "--cloud-name",
    "--construct-pem-chain",
    "--custom-user-agent",
    "--freshness-window",
    "--sni-name",
    "--token-proxy-ca-file",
    "--token-proxy-url",
    "--vault-requests-per-second",
    "--write-cert-and-key-in-separate-files",
];

/// The outcome of a publish: the modes of its files, or code and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Published(Vec<(String, u32)>),
    Refused(String),
}

thread_local! {
    /// The number of providers that this test has started; `None` while its drivers use the
    /// built-in one.
    static PROVIDERS: Cell<Option<usize>> = const { Cell::new(None) };
    /// The outcomes of this test's publishes.
    static OUTCOMES: RefCell<Vec<Outcome>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn trials() -> Vec<Trial> {
    let tests = TESTS.iter().copied().flatten();
    tests.map(|&(name, test)| crate::trial(name, move || provider_parity(test))).collect()
}

fn provider_parity(test: fn() -> Result<()>) -> Result<()> {
    OUTCOMES.take();
    test()?;
    let built_in = OUTCOMES.take();
    by_socket(|| test().context("by socket"))?;
    let by_socket = OUTCOMES.take();
    ensure!(built_in == by_socket, "built in: {built_in:?}\nby socket: {by_socket:?}");
    Ok(())
}

/// Runs something whose drivers use our provider behind a socket.
pub(crate) fn by_socket<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    PROVIDERS.set(Some(0));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    // The thread runs other tests later.
    let started = PROVIDERS.take();
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(started > Some(0), "no provider was started");
    Ok(outcome)
}

/// Whether this thread's drivers use our provider behind a socket now.
pub(crate) fn is_by_socket() -> bool {
    PROVIDERS.get().is_some()
}

/// Inside [`by_socket`], starts our provider in the folder in which a driver of this setup searches
/// for sockets, with the driver's flags about fetching.
pub(crate) fn provider_beside(setup: &mut Setup) -> Result<Option<ProviderProcess>> {
    let Some(started) = PROVIDERS.get() else {
        return Ok(None);
    };
    PROVIDERS.set(Some(started + 1));
    let mut provider = harness().provider_setup();
    let is_fetching = |flag: &&String| FETCHING.contains(&flag.split('=').next().unwrap_or_default());
    provider.flags = setup.flags.iter().filter(is_fetching).cloned().collect();
    provider.environment = setup.environment.clone();
    provider.ca = setup.ca.clone();
    if !setup.flags.iter().any(|flag| flag == "--azure-provider=external") {
        look_there(setup)?;
        setup.flags.push("--azure-provider=external".to_owned());
    }
    let [_, folder] = folders(setup);
    provider.providers = folder;
    provider.start().map(Some)
}

/// Notes the outcome of a publish of this test. A publish that a test repeats until something
/// changes counts once.
pub(crate) fn note(published: &Result<PathBuf, Status>) -> Result<()> {
    let outcome = match published {
        Ok(target) => {
            let files = tree(target)?;
            Outcome::Published(files.into_iter().map(|(path, (mode, _))| (path, mode)).collect())
        }
        Err(status) => {
            let text = status.message();
            let reason = text.rsplit_once(" (").and_then(|(_, end)| end.strip_suffix(')'));
            Outcome::Refused(format!("{:?} {}", status.code(), reason.unwrap_or(text)))
        }
    };
    OUTCOMES.with_borrow_mut(|outcomes| {
        if outcomes.last() != Some(&outcome) {
            outcomes.push(outcome);
        }
    });
    Ok(())
}

/// Returns the files of a volume as a pod sees them: mode and content by path.
pub(crate) fn tree(target: &Path) -> Result<BTreeMap<String, (u32, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![target.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.parent() == Some(target)
                && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
            {
                continue;
            }
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() {
                pending.push(path);
            } else {
                let below = path.strip_prefix(target)?.display().to_string();
                files.insert(below, (metadata.permissions().mode() & 0o7777, fs::read(&path)?));
            }
        }
    }
    Ok(files)
}
