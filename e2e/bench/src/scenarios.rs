//! The scenarios; the names of the figures are those of `target/bench.json`.
//!
//! Each scenario starts its own drivers, so that none benefits from the caches of another.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::Value;

use crate::environment::{Driver, Environment, Pods, SEPARATE, TENS, TIMEOUT, VAULTS};
use crate::figures::Figures;
use crate::process::Processors;

const REMOTE: Duration = Duration::from_millis(20);
const LOCAL: Duration = Duration::ZERO;
const CYCLES_COMPLETED: &str = "rotation_reconcile_duration_sec_count";
const ROTATING: [&str; 2] = ["--enable-secret-rotation", "--rotation-poll-interval=2s"];

/// One run of the scenarios that are repeated.
pub(crate) fn all(environment: &Environment, figures: &mut Figures) -> Result<()> {
    latency(environment, figures)?;
    throughput(environment, figures)?;
    memory(environment, figures)?;
    quiet_cycles(environment, figures)
}

/// An idle driver, in a cluster without classes.
pub(crate) fn idle(environment: &Environment, figures: &mut Figures) -> Result<()> {
    let driver = environment.driver(&[])?;
    figures.record("start_to_registered_ms", driver.registered.as_secs_f64() * 1000.0);
    let [pss, rss] = driver.memory()?;
    figures.record("idle_pss_mib", pss);
    figures.record("idle_rss_mib", rss);
    Ok(())
}

/// Volumes of ten objects, one after the other.
fn latency(environment: &Environment, figures: &mut Figures) -> Result<()> {
    const PODS: usize = 30;
    environment.set_latency(REMOTE);
    let driver = environment.driver(&[])?;
    figures.record("start_to_registered_302_classes_ms", driver.registered.as_secs_f64() * 1000.0);
    figures.record("idle_302_classes_pss_mib", driver.memory()?[0]);
    let one = Pods { classes: (1, TENS - 1), identities: (1, 1_000), ..Pods::alike(1, 1) };
    // The first request to the vault has the challenge, which is not measured here.
    driver.start(one)?;
    // Slow enough for the vault's budget, which is not measured here.
    let pods = Pods { classes: (PODS, 0), identities: (PODS, 0), pause: 150, ..Pods::alike(PODS, 1) };
    let unknown = counted(environment, || driver.start(Pods { first: 100, ..pods }))?;
    figures.record("publish_10_unknown_requests", unknown.requests / PODS as f64);
    figures.calls("publish_10_20ms_unknown", &unknown.report)?;
    let known = counted(environment, || driver.start(Pods { first: 200, classes: (PODS, PODS), ..pods }))?;
    figures.record("publish_10_known_requests", known.requests / PODS as f64);
    figures.calls("publish_10_20ms_known", &known.report)?;
    let fresh = counted(environment, || driver.start(Pods { first: 300, classes: (PODS, PODS), ..pods }))?;
    figures.record("publish_10_fresh_requests", fresh.requests / PODS as f64);
    figures.calls("publish_10_20ms_fresh", &fresh.report)?;
    figures.record("publish_api_writes", wait_for_writes(&driver)? as f64 / (3 * PODS + 1) as f64);
    figures.apis(driver.calls()?);
    environment.set_latency(LOCAL);
    let (cpu, machine) = (driver.cpu()?, Processors::now()?);
    let near = driver.start(Pods { first: 400, classes: (PODS, 2 * PODS), ..pods })?;
    // Here the CPU time matters: the driver's, and the machine's that was stolen.
    figures.record("publish_10_0ms_known_cpu_ms", (driver.cpu()? - cpu) * 1000.0 / PODS as f64);
    figures.record("publish_10_0ms_known_stolen_percent", Processors::now()?.stolen_since(machine));
    figures.calls("publish_10_0ms_known", &near)
}

struct Counted {
    report: Value,
    requests: f64,
}

fn counted(environment: &Environment, start: impl FnOnce() -> Result<Value>) -> Result<Counted> {
    let before = environment.requests();
    let report = start()?;
    let after = environment.requests();
    Ok(Counted { report, requests: (after[0] + after[1] - before[0] - before[1]) as f64 })
}

/// 200 volumes of ten objects, 32 at a time.
fn throughput(environment: &Environment, figures: &mut Figures) -> Result<()> {
    environment.set_latency(REMOTE);
    let pods = Pods::alike(200, 32);
    let driver = environment.driver(&[])?;
    let one = driver.start(pods)?;
    figures.record("throughput_32_one_identity_per_s", number(&one, "per_second")?);
    figures.record("throughput_32_one_identity_p99_ms", number(&one, "p99_ms")?);
    // Each pod has its own service principal and vault, so nothing is shared.
    let driver = environment.driver(&[])?;
    let distinct = driver.start(Pods { classes: (VAULTS, SEPARATE), identities: (VAULTS, 0), ..pods })?;
    figures.record("throughput_32_distinct_per_s", number(&distinct, "per_second")?);
    figures.record("throughput_32_distinct_p99_ms", number(&distinct, "p99_ms")?);
    // In one vault, the budget limits it: eleven requests for each pod, a hundred a second.
    let driver = environment.driver(&[])?;
    let pods = Pods { count: 50, identities: (50, 0), ..pods };
    let one_vault = driver.start(pods)?;
    figures.record("throughput_32_distinct_one_vault_per_s", number(&one_vault, "per_second")?);
    processor(environment, figures)
}

/// CPU time, as it was measured for upstream's programs: 400 volumes, 32 at a time. The freshness
/// window expires every ten seconds.
fn processor(environment: &Environment, figures: &mut Figures) -> Result<()> {
    const PODS: usize = 400;
    let pods = Pods::alike(PODS, 32);
    let driver = environment.driver(&[])?;
    let before = driver.cpu()?;
    driver.start(pods)?;
    figures.record("cpu_s_per_1000_publishes", (driver.cpu()? - before) * 1000.0 / PODS as f64);
    // The same without sharing: every publish fetches all its objects with its own token.
    let driver = environment.driver(&[])?;
    let before = driver.cpu()?;
    driver.start(Pods { count: VAULTS, classes: (VAULTS, SEPARATE), identities: (VAULTS, 0), ..pods })?;
    figures.record("cpu_s_per_1000_publishes_distinct", (driver.cpu()? - before) * 1000.0 / VAULTS as f64);
    Ok(())
}

fn memory(environment: &Environment, figures: &mut Figures) -> Result<()> {
    environment.set_latency(LOCAL);
    for (volumes, pss, rotating) in [
        (200, "pss_200x10_mib", true),
        (200, "pss_200x10_without_rotation_mib", false),
        (1_000, "pss_1000x10_mib", true),
    ] {
        let flags = ["--enable-secret-rotation"];
        let driver = environment.driver(if rotating { &flags } else { &[] })?;
        driver.start(Pods::alike(volumes, 8))?;
        wait_for_writes(&driver)?;
        figures.record(pss, driver.memory()?[0]);
    }
    Ok(())
}

/// 100 volumes of one service principal, and nothing changes.
fn quiet_cycles(environment: &Environment, figures: &mut Figures) -> Result<()> {
    const CYCLES: u64 = 5;
    environment.set_latency(REMOTE);
    let driver = environment.driver(&ROTATING)?;
    driver.start(Pods::alike(100, 8))?;
    let written = wait_for_writes(&driver)?;
    let cycles_before = driver.metric(CYCLES_COMPLETED)?;
    let quiet = cycles(environment, &driver, 10, CYCLES)?;
    ensure!(driver.metric(CYCLES_COMPLETED)? >= cycles_before + CYCLES as f64, "the cycles did not complete");
    figures.record("shared_cycle_100x10_requests", quiet.requests);
    figures.record("quiet_cycle_api_writes", (driver.writes()? - written) as f64);
    figures.record("quiet_cycle_100x10_cpu_ms", quiet.cpu_ms);
    let driver = environment.driver(&ROTATING)?;
    driver.start(Pods::alike(1_000, 8))?;
    wait_for_writes(&driver)?;
    figures.record("quiet_cycle_1000x10_cpu_ms", cycles(environment, &driver, 10, CYCLES)?.cpu_ms);
    Ok(())
}

/// The cost of one cycle of rotation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CycleCost {
    pub(crate) requests: f64,
    pub(crate) cpu_ms: f64,
}

/// Measures cycles of a driver with one fetch key and this number of objects. Counts them by
/// requests to the emulator: a scrape of the driver's metrics would cost it more than the cycles
/// do.
pub(crate) fn cycles(environment: &Environment, driver: &Driver<'_>, objects: usize, count: u64) -> Result<CycleCost> {
    let objects = objects as u64;
    let wait_for_requests = |least: u64| -> Result<u64> {
        wait_for("cycles", TIMEOUT, || Ok(environment.requests()[2] >= least))?;
        Ok(environment.requests()[2])
    };
    // From the last request of one cycle to the last request of another.
    let first = wait_for_requests(environment.requests()[2] + objects)?;
    let (requests, cpu) = (environment.requests(), driver.cpu()?);
    let last = wait_for_requests(first + count * objects)?;
    let (after, spent) = (environment.requests(), driver.cpu()? - cpu);
    let made = (last - first) as f64 / objects as f64;
    ensure!(driver.metric("rotation_volumes_failing")? == 0.0, "{}", driver.process.log());
    Ok(CycleCost {
        requests: (after[0] + after[1] - requests[0] - requests[1]) as f64 / made,
        cpu_ms: spent * 1000.0 / made,
    })
}

/// 1000 service principals with ten objects each in one vault: nothing is shared, and a cycle needs
/// 10,000 requests to a vault whose budget is a hundred a second. Pods start during the cycles.
pub(crate) fn unshared(environment: &Environment, figures: &mut Figures) -> Result<()> {
    const PODS: usize = 1_000;
    const MORE: usize = 40;
    environment.set_latency(REMOTE);
    let driver = environment.driver(&["--enable-secret-rotation", "--rotation-poll-interval=2m"])?;
    let pods = Pods { identities: (PODS, 0), ..Pods::alike(PODS, 32) };
    eprintln!("a thousand service principals (four minutes)");
    driver.start(pods)?;
    figures.record("unshared_1000_pss_mib", driver.memory()?[0]);
    let fetched = |driver: &Driver<'_>| driver.metric(CYCLES_COMPLETED);
    wait_for("refreshes have started", TIMEOUT, || Ok(fetched(&driver)? >= 100.0))?;
    let (began, before) = (Instant::now(), fetched(&driver)?);
    let mut slowest = Vec::new();
    for more in 0..MORE {
        let pod = Pods { first: PODS + more, count: 1, concurrency: 1, identities: (1, PODS + more), ..pods };
        slowest.push(number(&driver.start(pod)?, "max_ms")?);
        // Spreads the pods over the cycles.
        let due = Duration::from_secs(2) * u32::try_from(more + 1)?;
        wait_for("the next pod", TIMEOUT, || Ok(began.elapsed() >= due))?;
    }
    let elapsed = began.elapsed().as_secs_f64();
    slowest.sort_by(f64::total_cmp);
    figures.record("unshared_1000_refreshes_per_s", (fetched(&driver)? - before) / elapsed);
    figures.record("unshared_1000_first_mount_p50_ms", slowest[slowest.len() / 2]);
    figures.record("unshared_1000_first_mount_p99_ms", *slowest.last().context("no pods")?);
    figures.record("unshared_1000_busiest_second_requests", environment.busiest_second() as f64);
    let oldest = driver.metric("rotation_oldest_success_timestamp_seconds")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    figures.record("unshared_1000_oldest_fetch_s", now - oldest);
    figures.record("unshared_1000_failing_volumes", driver.metric("rotation_volumes_failing")?);
    Ok(())
}

/// Waits until the driver has written its status objects, which it does in the background, and
/// returns the number of writes.
pub(crate) fn wait_for_writes(driver: &Driver<'_>) -> Result<usize> {
    let (mut last, mut since) = (driver.writes()?, Instant::now());
    wait_for("the driver has written its status objects", TIMEOUT, || {
        let now = driver.writes()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(since.elapsed() >= Duration::from_secs(1))
    })?;
    Ok(last)
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().with_context(|| format!("the load client does not report {name}"))
}
