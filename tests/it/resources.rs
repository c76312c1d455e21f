//! Memory, descriptors and threads of the process, and the absence of core files.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::harness::{Node, harness};

trials! { "resources":
    the_idle_process_needs_at_most_ten_mib,
    descriptors_and_threads_do_not_grow,
    the_process_writes_no_core_file_and_cannot_be_read,
}

fn the_idle_process_needs_at_most_ten_mib() -> Result<()> {
    let binary = std::env::var_os("KEYVAULT_CSI_RELEASE")
        .map(PathBuf::from)
        .context("KEYVAULT_CSI_RELEASE is not set: run `make test`, which builds the release binary and names it")?;
    let binary = in_memory(&binary)?;
    let mut setup = harness().setup();
    setup.binary = format!("/proc/{}/fd/{}", std::process::id(), binary.as_raw_fd()).into();
    setup.flags.clear();
    let node = Node::start(setup)?;
    node.kubelet.register(&node.setup().registration_socket())?;
    assert_eq!(node.health("/readyz")?.0, 200);
    node.metrics()?;
    let resident = node.resident_kib()?;
    ensure!(resident <= 10 * 1024, "{resident} KiB are resident");
    Ok(())
}

/// Copies the binary into a file in memory, of which the kernel maps single pages.
///
/// Of a file on a disk the kernel maps more or fewer pages around each page in use, depending on
/// the state of the page cache: 8.9 MiB were resident after linking, and 10.3 MiB when the same
/// bytes had been evicted and read again.
fn in_memory(binary: &Path) -> Result<File> {
    let memory = File::from(memfd_create(c"keyvault-csi", MFdFlags::MFD_CLOEXEC)?);
    std::io::copy(&mut File::open(binary)?, &mut &memory)?;
    // A file that is open for writing cannot be executed.
    Ok(File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?)
}

fn descriptors_and_threads_do_not_grow() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let count = |what: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{}/{what}", node.id()))?.count());
    let round = || -> Result<()> {
        for _ in 0..20 {
            let volume = vault.volume("demo");
            node.publish(&volume)?;
            node.kubelet.unpublish(&volume)?;
        }
        Ok(())
    };
    round()?;
    let before = count("fd")?;
    round()?;
    // The other side of a closed connection may still be open for a moment.
    wait_for("the descriptors are closed", Duration::from_secs(5), || Ok(count("fd")? <= before + 2))?;
    ensure!(count("task")? <= 2 + 8 + 2, "{} threads", count("task")?);
    Ok(())
}

fn the_process_writes_no_core_file_and_cannot_be_read() -> Result<()> {
    let node = harness().node()?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.id()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // SIGQUIT makes other processes dump core; the wait status has the kernel's flag for it.
    node.signal(nix::sys::signal::Signal::SIGQUIT)?;
    let id = nix::unistd::Pid::from_raw(i32::try_from(node.id())?);
    let status = nix::sys::wait::waitpid(id, None)?;
    assert_eq!(status, nix::sys::wait::WaitStatus::Signaled(id, nix::sys::signal::Signal::SIGQUIT, false));
    Ok(())
}
