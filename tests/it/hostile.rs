//! Helpers of the tests of hostile input: the rise of a process's memory, and a neighbour that the
//! driver must serve.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Node, Vault, harness};

/// How long a neighbour's publish may take during an attack, on a busy machine.
const NEIGHBOUR: Duration = Duration::from_secs(30);

/// The peak memory of a process since a point in time.
pub(crate) struct Peak {
    process: u32,
    before: u64,
}

impl Peak {
    /// Resets the kernel's high-water mark of a process.
    pub(crate) fn of(process: u32) -> Result<Peak> {
        // 5 resets the mark (proc(5), clear_refs).
        fs::write(format!("/proc/{process}/clear_refs"), "5")
            .context("cannot reset the high-water mark: run as root")?;
        Ok(Peak { process, before: status(process, "VmRSS:")? })
    }

    /// The rise of the resident memory at its peak, in KiB.
    pub(crate) fn risen(&self) -> Result<u64> {
        Ok(status(self.process, "VmHWM:")?.saturating_sub(self.before))
    }

    /// Fails if the memory rose by more than this number of MiB.
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

/// Another tenant of the node, with a vault and a class of its own.
pub(crate) struct Neighbour {
    vault: Vault,
    value: String,
}

impl Neighbour {
    pub(crate) fn new(node: &Node) -> Result<Neighbour> {
        let vault = harness().vault();
        let value = vault.set("password");
        node.class("neighbour", &vault.parameters(&["password"]))?;
        Ok(Neighbour { vault, value })
    }

    /// Publishes and unpublishes a new pod of the neighbour, and checks its file.
    pub(crate) fn is_served(&self, node: &Node) -> Result<()> {
        self.is_served_within(node, NEIGHBOUR)?;
        ensure!(!node.log().contains("panicked"), "the driver panicked:\n{}", node.log());
        Ok(())
    }

    /// The same with another deadline, for drivers that may fail.
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
