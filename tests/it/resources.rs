//! What the process costs, and what it leaves behind.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;

use crate::harness::harness;

trials! { "resources":
    descriptors_and_threads_do_not_grow,
    it_writes_no_core_file_and_may_not_be_read,
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
    // A connection that was just closed may still be open on the other side.
    wait_for("descriptors go back", Duration::from_secs(5), || Ok(count("fd")? <= before + 2))?;
    ensure!(count("task")? <= 2 + 8 + 2, "{} threads", count("task")?);
    Ok(())
}

fn it_writes_no_core_file_and_may_not_be_read() -> Result<()> {
    let node = harness().node()?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.id()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // Killed by a signal that makes others dump, it leaves no core: the kernel says so in the wait status.
    node.signal(nix::sys::signal::Signal::SIGQUIT)?;
    let id = nix::unistd::Pid::from_raw(i32::try_from(node.id())?);
    let ended = nix::sys::wait::waitpid(id, None)?;
    assert_eq!(ended, nix::sys::wait::WaitStatus::Signaled(id, nix::sys::signal::Signal::SIGQUIT, false));
    Ok(())
}
