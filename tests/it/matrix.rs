//! The tests of the Azure provider, each made both ways: with the driver's own provider, and with `--azure-provider=external` and our
//! provider behind its socket. The second has to bring what the first brought: files, modes and Reasons, publish by publish.
//!
//! Contents differ from run to run, since values are made up; the tests themselves say what they must be, and
//! `provider_parity` holds one vault's against each other byte by byte.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::DriverSetup;
use keyvault_csi_e2e::provider::ProviderProcess;
use libtest_mimic::Trial;
use tonic::Status;

use crate::external_fixture::{folders, look_there};
use crate::harness::harness;
use crate::{
    azure, certificates, cloud_files, identities, networks, objects, publish, refusals, scenarios, sharing,
    troubleshooting,
};

/// The tests that are made both ways.
const CORPUS: &[&[crate::Test]] = &[
    azure::TESTS,
    certificates::TESTS,
    cloud_files::TESTS,
    identities::TESTS,
    networks::TESTS,
    objects::TESTS,
    publish::TESTS,
    refusals::TESTS,
    scenarios::TESTS,
    sharing::TESTS,
    troubleshooting::TESTS,
];

/// The flags that both roles have: where the driver does not fetch, they are the provider's.
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

/// How a publish ended: the modes of its files, or code and Reason.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Published(Vec<(String, u32)>),
    Refused(String),
}

thread_local! {
    /// How many providers this test has started beside its drivers; `None` while drivers are to have their own.
    static BESIDE: Cell<Option<usize>> = const { Cell::new(None) };
    /// What publishes of this test brought.
    static BROUGHT: RefCell<Vec<Outcome>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn trials() -> Vec<Trial> {
    let tests = CORPUS.iter().copied().flatten();
    tests.map(|&(name, test)| crate::trial(name, move || provider_parity(test))).collect()
}

fn provider_parity(test: fn() -> Result<()>) -> Result<()> {
    BROUGHT.take();
    test()?;
    let built_in = BROUGHT.take();
    by_socket(|| test().context("by socket"))?;
    let by_socket = BROUGHT.take();
    ensure!(built_in == by_socket, "built in: {built_in:?}\nby socket: {by_socket:?}");
    Ok(())
}

/// Does something whose drivers have our provider behind a socket.
pub(crate) fn by_socket<T>(does: impl FnOnce() -> Result<T>) -> Result<T> {
    BESIDE.set(Some(0));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(does));
    // The thread goes on to other tests.
    let started = BESIDE.take();
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(started > Some(0), "no provider was started");
    Ok(outcome)
}

/// Whether drivers have our provider behind a socket at this moment.
pub(crate) fn is_by_socket() -> bool {
    BESIDE.get().is_some()
}

/// Starts our provider where a driver of this setup looks, if it is to have one: with the driver's own flags as far as they are
/// about fetching.
pub(crate) fn provider_beside(setup: &mut DriverSetup) -> Result<Option<ProviderProcess>> {
    let Some(started) = BESIDE.get() else {
        return Ok(None);
    };
    BESIDE.set(Some(started + 1));
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

/// Notes what a publish of this test brought; one that is made again and again until something changes counts once.
pub(crate) fn note(published: &Result<PathBuf, Status>) -> Result<()> {
    let outcome = match published {
        Ok(target) => {
            let files = tree(target)?;
            Outcome::Published(files.into_iter().map(|(path, (mode, _))| (path, mode)).collect())
        }
        Err(status) => {
            let said = status.message();
            let reason = said.rsplit_once(" (").and_then(|(_, end)| end.strip_suffix(')'));
            Outcome::Refused(format!("{:?} {}", status.code(), reason.unwrap_or(said)))
        }
    };
    BROUGHT.with_borrow_mut(|brought| {
        if brought.last() != Some(&outcome) {
            brought.push(outcome);
        }
    });
    Ok(())
}

/// The files of a volume as a pod sees them: mode and content by path.
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
            let about = fs::metadata(&path)?;
            if about.is_dir() {
                pending.push(path);
            } else {
                let below = path.strip_prefix(target)?.display().to_string();
                files.insert(below, (about.permissions().mode() & 0o7777, fs::read(&path)?));
            }
        }
    }
    Ok(files)
}
