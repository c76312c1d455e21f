//! What the kernel knows of a process: memory and processor time.
//!
//! Reads /proc only, so that the process is not disturbed.

use std::fs;

use anyhow::{Context as _, Result};

/// Memory in MiB: the proportional set size, and all that is resident.
pub(crate) fn memory(id: u32) -> Result<[f64; 2]> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let field = |name: &str| -> Result<f64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    };
    Ok([field("Pss:")?, field("Rss:")?])
}

/// Processor time in seconds so far: the process's own and its ended children's, in the program and in the kernel.
///
/// The sum over its threads is counted in nanoseconds by the scheduler; children count in ticks.
pub(crate) fn cpu(id: u32) -> Result<f64> {
    let mut own = 0.0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread that ends meanwhile had next to nothing: workers stay.
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        own += stat.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or_default() / 1e9;
    }
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no stat")?;
    let children: f64 = fields.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(own + children / 100.0)
}
