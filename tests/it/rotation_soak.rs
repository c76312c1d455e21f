//! Thousands of cycles of many volumes: memory, descriptors and threads do not grow. Takes minutes;
//! `make soak` runs it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use azure_emulator::Kind;
use keyvault_csi_e2e::driver::wait_for;
use libtest_mimic::Trial;

use crate::harness::{Node, harness};
use crate::rotation::{PATIENCE, cycles};
use crate::sharing::{pods, publish_all};

pub(crate) fn trials() -> Vec<Trial> {
    let test = || memory_does_not_grow().map_err(|error: anyhow::Error| format!("{error:#}").into());
    vec![Trial::test("rotation_soak::memory_does_not_grow", test).with_ignored_flag(true)]
}

/// The number of cycles, unless KEYVAULT_CSI_SOAK_CYCLES has another one.
const CYCLES: f64 = 5_000.0;
const VOLUMES: usize = 200;

fn memory_does_not_grow() -> Result<()> {
    let last = std::env::var("KEYVAULT_CSI_SOAK_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(CYCLES);
    let mut setup = harness().setup();
    if let Some(release) = std::env::var_os("KEYVAULT_CSI_RELEASE") {
        setup.binary = PathBuf::from(release);
    }
    setup.flags = ["--enable-secret-rotation", "--rotation-poll-interval=100ms", "--vault-requests-per-second=0"]
        .map(str::to_owned)
        .to_vec();
    // As in the chart.
    setup.environment.push(("MALLOC_ARENA_MAX".to_owned(), "2".to_owned()));
    let (node, vault) = (Node::start(setup)?, harness().vault());
    let volumes = pods(&node, &vault, 10, 1, VOLUMES)?;
    // More calls at once than threads, so that the process has all its threads from the start.
    for some in volumes.chunks(100) {
        publish_all(&node, some)?;
    }
    let files: Vec<PathBuf> = volumes.iter().map(|volume| node.kubelet.target(volume).join("object-3")).collect();
    let count = |what: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{}/{what}", node.id()))?.count());
    let (mut rounds, mut first) = (0_usize, None);
    let began = Instant::now();
    loop {
        // A new value in every volume, and then the kubelet's calls for some of them.
        let value = vault.set("object-3");
        wait_for("the value in all volumes", PATIENCE, || {
            Ok(files.iter().all(|file| fs::read_to_string(file).is_ok_and(|found| found == value)))
        })?;
        for volume in volumes.iter().skip(rounds * 20 % VOLUMES).take(20) {
            node.publish(volume)?;
        }
        rounds += 1;
        let done = cycles(&node)?;
        let now = (node.resident_kib()?, count("fd")?, count("task")?);
        // After ten cycles that wrote every volume.
        if rounds >= 10 && first.is_none() {
            first = Some(now);
        }
        if let Some(first) = first
            && done >= last
        {
            let (cycles, gets) = (done, vault.counters().get(Kind::Get));
            writeln!(
                std::io::stdout(),
                "{cycles} cycles of {VOLUMES} volumes in {:.0?}, {rounds} of them with a new value, {gets} GETs; resident KiB, \
                 descriptors, threads: {first:?} after ten cycles, {now:?} at the end",
                began.elapsed()
            )?;
            ensure!(now.0 as f64 <= 1.05 * first.0 as f64, "memory grew from {} to {} KiB", first.0, now.0);
            ensure!(now.1 <= first.1 + 4 && now.2 <= first.2 + 4, "descriptors or threads grew");
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(3_600), "only {done} cycles in an hour");
    }
}
