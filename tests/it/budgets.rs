//! What the release binary may take: its size, and its memory while it has nothing to do.
//!
//! `make budgets` runs these tests, one after the other, since other drivers on the machine change
//! what is resident. The bounds stand a quarter above what was measured; `make bench` asserts the
//! goals of binary and idle memory with the API.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use libtest_mimic::Trial;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::apiserver::{Rights, cluster};
use crate::harness::{Node, harness};

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [crate::Test; 3] = [
        ("budgets::the_binary_keeps_its_size", the_binary_keeps_its_size),
        ("budgets::the_idle_process_keeps_its_memory", the_idle_process_keeps_its_memory),
        ("budgets::the_idle_process_with_the_api_keeps_its_memory", the_idle_process_with_the_api_keeps_its_memory),
    ];
    tests.map(|(name, test)| crate::trial(name, test).with_ignored_flag(true)).into()
}

/// The largest binary, in bytes: 12.9 MB were measured.
const BINARY: u64 = 16_500_000;
/// The most resident memory in KiB: 9.3 MiB were measured without the Kubernetes API, 10.4 with it.
const IDLE: u64 = 12 * 1_024;
const IDLE_WITH_API: u64 = 13 * 1_024 + 256;

/// How long the list of classes may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn release() -> Result<PathBuf> {
    let binary = std::env::var_os("KEYVAULT_CSI_RELEASE").map(PathBuf::from);
    binary.context("KEYVAULT_CSI_RELEASE is not set: run `make budgets`, which builds the release binary")
}

fn the_binary_keeps_its_size() -> Result<()> {
    let size = fs::metadata(release()?)?.len();
    ensure!(size <= BINARY, "{size} bytes");
    Ok(())
}

fn the_idle_process_keeps_its_memory() -> Result<()> {
    let binary = in_memory()?;
    let mut setup = harness().setup();
    setup.binary = format!("/proc/{}/fd/{}", std::process::id(), binary.as_raw_fd()).into();
    setup.flags.clear();
    let node = Node::start(setup)?;
    node.kubelet.register(&node.setup().registration_socket())?;
    assert_eq!(node.health("/readyz")?.0, 200);
    within(&node, IDLE)
}

/// The binary as a file in memory, in single pages.
///
/// The kernel maps more or less of a file on a disk around each page that the process touches,
/// depending on how the file came into the page cache: 8.9 MiB were resident after linking, 10.3
/// after other builds had evicted the same file and the process read it again.
fn in_memory() -> Result<File> {
    let memory = File::from(memfd_create(c"keyvault-csi", MFdFlags::MFD_CLOEXEC)?);
    std::io::copy(&mut File::open(release()?)?, &mut &memory)?;
    // The kernel executes no file that is open for writing.
    Ok(File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?)
}

fn the_idle_process_with_the_api_keeps_its_memory() -> Result<()> {
    let (cluster, vault) = (cluster()?, harness().vault());
    vault.set("password");
    cluster.class(&cluster.namespace()?, "demo", &vault, &["password"])?;
    let mut setup = cluster.setup(&cluster.user(Rights::All)?);
    let binary = in_memory()?;
    setup.binary = format!("/proc/{}/fd/{}", std::process::id(), binary.as_raw_fd()).into();
    setup.flags.clear();
    let node = Node::start(setup)?;
    wait_for("the classes are listed", PATIENCE, || Ok(node.log().contains("secretproviderclasses listed")))?;
    node.kubelet.register(&node.setup().registration_socket())?;
    within(&node, IDLE_WITH_API)
}

/// Checks the resident memory after a scrape of the metrics.
fn within(node: &Node, most: u64) -> Result<()> {
    node.metrics()?;
    let resident = node.resident_kib()?;
    let status = fs::read_to_string(format!("/proc/{}/status", node.id()))?;
    let parts: Vec<&str> = status.lines().filter(|line| line.starts_with("Rss")).collect();
    // In the log of each run, so that a trend is seen before the bound is reached.
    writeln!(std::io::stdout(), "{resident} KiB are resident, at most {most} are allowed")?;
    ensure!(resident <= most, "{resident} KiB are resident, at most {most} are allowed: {parts:?}");
    Ok(())
}
