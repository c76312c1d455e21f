//! A driver's memory has no value of a secret after its work, whichever library's buffer the value
//! was in.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;

use crate::harness::harness;

trials! { "memory":
    values_are_wiped_from_memory,
}

/// How long values may stay: an idle connection is closed within 20 s, and its buffers have the
/// last responses.
const KEPT: Duration = Duration::from_secs(40);

/// Counts `wanted` in the writable memory of a process.
fn occurrences(process: u32, wanted: &[u8]) -> Result<usize> {
    let memory =
        File::open(format!("/proc/{process}/mem")).context("the driver's memory cannot be opened: run as root")?;
    let mut found = 0;
    for line in fs::read_to_string(format!("/proc/{process}/maps"))?.lines() {
        let (range, rest) = line.split_once(' ').context("a line of maps")?;
        if !rest.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').context("a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut bytes = vec![0; usize::try_from(end - start)?];
        // The process may have removed the mapping by now.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            found += bytes.windows(wanted.len()).filter(|window| *window == wanted).count();
        }
    }
    Ok(found)
}

/// The SDK, its JSON reader and the HTTP client keep values in plain strings: the allocator wipes
/// them.
fn values_are_wiped_from_memory() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    // The driver's own flag, as a check of the search.
    ensure!(occurrences(node.id(), b"--registration-dir=")? > 0, "the search finds nothing at all");
    let names: Vec<String> = (0..20).map(|number| format!("secret-{number}")).collect();
    let values: Vec<String> = names.iter().map(|name| vault.set(name)).collect();
    node.class("demo", &vault.parameters(&names.iter().map(String::as_str).collect::<Vec<_>>()))?;
    let volume = vault.volume("demo");
    node.publish(&volume)?;
    // All values have the same prefix, so that one pass through the memory is enough.
    let common = b"s3cr3t-secret-";
    ensure!(values.iter().all(|value| value.as_bytes().starts_with(common)));
    wait_for("no value is in the driver's memory", KEPT, || Ok(occurrences(node.id(), common)? == 0))
}
