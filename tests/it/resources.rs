//! Memory, descriptors and threads of the process, and the absence of core files.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::harness::harness;

trials! { "resources":
    descriptors_and_threads_do_not_grow,
    the_process_writes_no_core_file_and_cannot_be_read,
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
    // SIGABRT makes other processes dump core; the wait status has the kernel's flag for it. Shells
    // start background jobs that ignore SIGQUIT, and drivers inherit that.
    node.signal(Signal::SIGABRT)?;
    let id = Pid::from_raw(i32::try_from(node.id())?);
    let mut status = WaitStatus::StillAlive;
    wait_for("the driver ends", Duration::from_secs(60), || {
        status = waitpid(id, Some(WaitPidFlag::WNOHANG))?;
        Ok(status != WaitStatus::StillAlive)
    })?;
    assert_eq!(status, WaitStatus::Signaled(id, Signal::SIGABRT, false));
    Ok(())
}
