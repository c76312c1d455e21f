//! Memory and CPU time of a process, and CPU time of the machine, from the kernel.
//!
//! Nothing is requested of the process, so that the measurement costs it nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Memory in MiB: proportional and resident set size.
pub(crate) fn memory(id: u32) -> Result<[f64; 2]> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let field = |name: &str| -> Result<f64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    };
    Ok([field("Pss:")?, field("Rss:")?])
}

/// CPU time in seconds so far, user and system: of the process with all its threads, also those
/// that exited, in nanoseconds, and of its children that exited, in ticks.
pub(crate) fn cpu(id: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(id.try_into()?))?;
    let own = Duration::from(clock_gettime(clock)?).as_secs_f64();
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no stat")?;
    let children: f64 = fields.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(own + children / 100.0)
}

/// CPU time of the machine so far, in ticks: used, and stolen by the hypervisor for other machines
/// (proc_stat(5), `steal`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    ran: f64,
    stolen: f64,
}

impl Processors {
    pub(crate) fn now() -> Result<Processors> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no processors")?;
        let ticks: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else {
            anyhow::bail!("the kernel does not report stolen time");
        };
        Ok(Processors { ran: user + nice + system + irq + softirq, stolen })
    }

    /// The stolen part of the CPU time since `before`, in percent.
    pub(crate) fn stolen_since(self, before: Processors) -> f64 {
        let (ran, stolen) = (self.ran - before.ran, self.stolen - before.stolen);
        stolen * 100.0 / (ran + stolen).max(1.0)
    }
}
