//! What tests of hostile input share: how far a process's memory rose, and that the driver still serves a neighbour.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Node, Vault, harness};

/// How long a neighbour's publish may take while the driver is under attack, on a busy machine.
const NEIGHBOUR: Duration = Duration::from_secs(30);

/// The memory of a process, from now on.
pub(crate) struct Peak {
    process: u32,
    before: u64,
}

impl Peak {
    /// Sets the kernel's high-water mark of a process to what it has now.
    pub(crate) fn of(process: u32) -> Result<Peak> {
        // The value that resets the mark (proc(5), clear_refs).
        fs::write(format!("/proc/{process}/clear_refs"), "5")
            .context("cannot reset the high-water mark: run as root")?;
        Ok(Peak { process, before: status(process, "VmRSS:")? })
    }

    /// How many KiB more than at the beginning were resident at the highest point since.
    pub(crate) fn risen(&self) -> Result<u64> {
        Ok(status(self.process, "VmHWM:")?.saturating_sub(self.before))
    }

    /// The memory must not have risen by more than this many MiB.
    pub(crate) fn at_most(&self, mib: u64) -> Result<()> {
        let risen = self.risen()?;
        ensure!(risen <= mib << 10, "memory rose by {risen} KiB; at most {mib} MiB are allowed");
        Ok(())
    }
}

/// A line of /proc/PID/status in KiB.
fn status(process: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A tenant of the same node, with a vault and a class of its own.
pub(crate) struct Neighbour {
    vault: Vault,
    value: String,
}

impl Neighbour {
    /// Makes the vault and the class.
    pub(crate) fn new(node: &Node) -> Result<Neighbour> {
        let vault = harness().vault();
        let value = vault.set("password");
        node.class("neighbour", &vault.parameters(&["password"]))?;
        Ok(Neighbour { vault, value })
    }

    /// A new pod of the neighbour starts and ends, and its files are right.
    pub(crate) fn is_served(&self, node: &Node) -> Result<()> {
        self.is_served_within(node, NEIGHBOUR)?;
        ensure!(!node.log().contains("panicked"), "the driver panicked:\n{}", node.log());
        Ok(())
    }

    /// The same with another deadline, for drivers that are expected to fail.
    pub(crate) fn is_served_within(&self, node: &Node, patience: Duration) -> Result<()> {
        let began = Instant::now();
        let volume = self.vault.volume("neighbour");
        let target = node.publish_within(&volume, patience).context("the neighbour's pod does not start")?;
        ensure!(fs::read_to_string(target.join("password"))? == self.value, "the neighbour's file is wrong");
        node.kubelet.unpublish(&volume).context("the neighbour's pod does not end")?;
        ensure!(began.elapsed() < patience, "the neighbour waited {:?}", began.elapsed());
        Ok(())
    }
}
