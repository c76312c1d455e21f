//! What the kernel knows of a process: memory and processor time.
//!
//! Asks the kernel only, so that the process is not disturbed.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Memory in MiB: the proportional set size, and all that is resident.
pub(crate) fn memory(id: u32) -> Result<[f64; 2]> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let field = |name: &str| -> Result<f64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    };
    Ok([field("Pss:")?, field("Rss:")?])
}

/// Processor time in seconds so far: the process's own with all threads that it ever had, in nanoseconds, and its ended
/// children's, in ticks; in the program and in the kernel.
pub(crate) fn cpu(id: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(id.try_into()?))?;
    let own = Duration::from(clock_gettime(clock)?).as_secs_f64();
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no stat")?;
    let children: f64 = fields.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(own + children / 100.0)
}
