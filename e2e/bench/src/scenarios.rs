//! What is measured, scenario by scenario; the names of the figures are those of `target/bench.json`.
//!
//! Each scenario starts drivers of its own, so that no one finds what another left in memory.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::Value;

use super::process::Processors;
use super::report::Figures;
use super::scene::{APART, Driver, PATIENCE, Pods, Scene, TENS, VAULTS};

const AWAY: Duration = Duration::from_millis(20);
const NEAR: Duration = Duration::ZERO;
const CYCLES_ENDED: &str = "rotation_reconcile_duration_sec_count";
const ROTATING: [&str; 2] = ["--enable-secret-rotation", "--rotation-poll-interval=2s"];

/// One run of everything that is run several times.
pub(crate) fn all(scene: &Scene, figures: &mut Figures) -> Result<()> {
    latency(scene, figures)?;
    throughput(scene, figures)?;
    memory(scene, figures)?;
    quiet_cycles(scene, figures)
}

/// A driver that has nothing to do, in a cluster without classes.
pub(crate) fn idle(scene: &Scene, figures: &mut Figures) -> Result<()> {
    let driver = scene.driver(&[])?;
    figures.note("start_to_registered_ms", driver.registered.as_secs_f64() * 1000.0);
    let [pss, rss] = driver.memory()?;
    figures.note("idle_pss_mib", pss);
    figures.note("idle_rss_mib", rss);
    Ok(())
}

/// One volume after the other, each of ten objects.
fn latency(scene: &Scene, figures: &mut Figures) -> Result<()> {
    const PODS: usize = 30;
    scene.away(AWAY);
    let driver = scene.driver(&[])?;
    figures.note("start_to_registered_302_classes_ms", driver.registered.as_secs_f64() * 1000.0);
    figures.note("idle_302_classes_pss_mib", driver.memory()?[0]);
    let one = Pods { classes: (1, TENS - 1), identities: (1, 1_000), ..Pods::alike(1, 1) };
    // The process meets the vault.
    driver.start(one)?;
    // Slow enough for the vault's budget, which is not what is measured here.
    let pods = Pods { classes: (PODS, 0), identities: (PODS, 0), pause: 150, ..Pods::alike(PODS, 1) };
    let unknown = counted(scene, || driver.start(Pods { first: 100, ..pods }))?;
    figures.note("publish_10_unknown_requests", unknown.requests / PODS as f64);
    figures.calls("publish_10_20ms_unknown", &unknown.report)?;
    let known = counted(scene, || driver.start(Pods { first: 200, classes: (PODS, PODS), ..pods }))?;
    figures.note("publish_10_known_requests", known.requests / PODS as f64);
    figures.calls("publish_10_20ms_known", &known.report)?;
    let fresh = counted(scene, || driver.start(Pods { first: 300, classes: (PODS, PODS), ..pods }))?;
    figures.note("publish_10_fresh_requests", fresh.requests / PODS as f64);
    figures.calls("publish_10_20ms_fresh", &fresh.report)?;
    figures.note("publish_api_writes", settled(&driver)? as f64 / (3 * PODS + 1) as f64);
    figures.apis(driver.calls()?);
    scene.away(NEAR);
    let (cpu, machine) = (driver.cpu()?, Processors::now()?);
    let near = driver.start(Pods { first: 400, classes: (PODS, 2 * PODS), ..pods })?;
    // Here it is processor time that counts: the driver's, and what others left of the machine.
    figures.note("publish_10_0ms_known_cpu_ms", (driver.cpu()? - cpu) * 1000.0 / PODS as f64);
    figures.note("publish_10_0ms_known_stolen_percent", Processors::now()?.stolen_since(machine));
    figures.calls("publish_10_0ms_known", &near)
}

struct Counted {
    report: Value,
    requests: f64,
}

fn counted(scene: &Scene, start: impl FnOnce() -> Result<Value>) -> Result<Counted> {
    let before = scene.requests();
    let report = start()?;
    let after = scene.requests();
    Ok(Counted { report, requests: (after[0] + after[1] - before[0] - before[1]) as f64 })
}

/// Two hundred volumes of ten objects, 32 at a time.
fn throughput(scene: &Scene, figures: &mut Figures) -> Result<()> {
    scene.away(AWAY);
    let pods = Pods::alike(200, 32);
    let driver = scene.driver(&[])?;
    let one = driver.start(pods)?;
    figures.note("throughput_32_one_identity_per_s", number(&one, "per_second")?);
    figures.note("throughput_32_one_identity_p99_ms", number(&one, "p99_ms")?);
    // Each pod with a service principal and a vault of its own: nothing can be shared.
    let driver = scene.driver(&[])?;
    let distinct = driver.start(Pods { classes: (VAULTS, APART), identities: (VAULTS, 0), ..pods })?;
    figures.note("throughput_32_distinct_per_s", number(&distinct, "per_second")?);
    figures.note("throughput_32_distinct_p99_ms", number(&distinct, "p99_ms")?);
    // In one vault, its budget is what counts: eleven requests each, a hundred a second.
    let driver = scene.driver(&[])?;
    let pods = Pods { count: 50, identities: (50, 0), ..pods };
    let one_vault = driver.start(pods)?;
    figures.note("throughput_32_distinct_one_vault_per_s", number(&one_vault, "per_second")?);
    processor(scene, figures)
}

/// As the Go systems were measured: 400 volumes, 32 at a time; every ten seconds nothing is fresh any more.
fn processor(scene: &Scene, figures: &mut Figures) -> Result<()> {
    const PODS: usize = 400;
    let pods = Pods::alike(PODS, 32);
    let driver = scene.driver(&[])?;
    let before = driver.cpu()?;
    driver.start(pods)?;
    figures.note("cpu_s_per_1000_publishes", (driver.cpu()? - before) * 1000.0 / PODS as f64);
    // The same without anything to share: every publish fetches all of its objects with a token of its own.
    let driver = scene.driver(&[])?;
    let before = driver.cpu()?;
    driver.start(Pods { count: VAULTS, classes: (VAULTS, APART), identities: (VAULTS, 0), ..pods })?;
    figures.note("cpu_s_per_1000_publishes_distinct", (driver.cpu()? - before) * 1000.0 / VAULTS as f64);
    Ok(())
}

fn memory(scene: &Scene, figures: &mut Figures) -> Result<()> {
    scene.away(NEAR);
    for (volumes, pss, rotating) in [
        (200, "pss_200x10_mib", true),
        (200, "pss_200x10_without_rotation_mib", false),
        (1_000, "pss_1000x10_mib", true),
    ] {
        let flags = ["--enable-secret-rotation"];
        let driver = scene.driver(if rotating { &flags } else { &[] })?;
        driver.start(Pods::alike(volumes, 8))?;
        settled(&driver)?;
        figures.note(pss, driver.memory()?[0]);
    }
    Ok(())
}

/// A hundred volumes of one service principal, and nothing changes.
fn quiet_cycles(scene: &Scene, figures: &mut Figures) -> Result<()> {
    const CYCLES: u64 = 5;
    scene.away(AWAY);
    let driver = scene.driver(&ROTATING)?;
    driver.start(Pods::alike(100, 8))?;
    let written = settled(&driver)?;
    let cycles_before = driver.metric(CYCLES_ENDED)?;
    let quiet = cycles(scene, &driver, 10, CYCLES)?;
    ensure!(driver.metric(CYCLES_ENDED)? >= cycles_before + CYCLES as f64, "the cycles did not end");
    figures.note("shared_cycle_100x10_requests", quiet.requests);
    figures.note("quiet_cycle_api_writes", (driver.writes()? - written) as f64);
    figures.note("quiet_cycle_100x10_cpu_ms", quiet.cpu_ms);
    let driver = scene.driver(&ROTATING)?;
    driver.start(Pods::alike(1_000, 8))?;
    settled(&driver)?;
    figures.note("quiet_cycle_1000x10_cpu_ms", cycles(scene, &driver, 10, CYCLES)?.cpu_ms);
    Ok(())
}

/// What a cycle costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet {
    pub(crate) requests: f64,
    pub(crate) cpu_ms: f64,
}

/// Watches some cycles of a driver with one fetch group of so many objects. Asks Azure how far it is: asking the driver would cost
/// it more than the cycles do.
pub(crate) fn cycles(scene: &Scene, driver: &Driver<'_>, objects: usize, count: u64) -> Result<Quiet> {
    let objects = objects as u64;
    let ended = |least: u64| -> Result<u64> {
        wait_for("cycles", PATIENCE, || Ok(scene.requests()[2] >= least))?;
        Ok(scene.requests()[2])
    };
    // From the last request of one cycle to the last one of another.
    let first = ended(scene.requests()[2] + objects)?;
    let (requests, cpu) = (scene.requests(), driver.cpu()?);
    let last = ended(first + count * objects)?;
    let (after, spent) = (scene.requests(), driver.cpu()? - cpu);
    let made = (last - first) as f64 / objects as f64;
    ensure!(driver.metric("rotation_volumes_failing")? == 0.0, "{}", driver.process.log());
    Ok(Quiet {
        requests: (after[0] + after[1] - requests[0] - requests[1]) as f64 / made,
        cpu_ms: spent * 1000.0 / made,
    })
}

/// A thousand service principals with ten objects each in one vault: nothing can be shared, and a cycle needs ten thousand requests
/// of a vault that may be asked for a hundred a second. Meanwhile pods start.
pub(crate) fn unshared(scene: &Scene, figures: &mut Figures) -> Result<()> {
    const PODS: usize = 1_000;
    const MORE: usize = 40;
    scene.away(AWAY);
    let driver = scene.driver(&["--enable-secret-rotation", "--rotation-poll-interval=2m"])?;
    let pods = Pods { identities: (PODS, 0), ..Pods::alike(PODS, 32) };
    eprintln!("a thousand service principals (four minutes)");
    driver.start(pods)?;
    figures.note("unshared_1000_pss_mib", driver.memory()?[0]);
    let fetched = |driver: &Driver<'_>| driver.metric(CYCLES_ENDED);
    wait_for("refreshes are under way", PATIENCE, || Ok(fetched(&driver)? >= 100.0))?;
    let (began, before) = (Instant::now(), fetched(&driver)?);
    let mut slowest = Vec::new();
    for more in 0..MORE {
        let pod = Pods { first: PODS + more, count: 1, concurrency: 1, identities: (1, PODS + more), ..pods };
        slowest.push(number(&driver.start(pod)?, "max_ms")?);
        // So that they come at any moment of the cycles.
        let due = Duration::from_secs(2) * u32::try_from(more + 1)?;
        wait_for("the next pod", PATIENCE, || Ok(began.elapsed() >= due))?;
    }
    let elapsed = began.elapsed().as_secs_f64();
    slowest.sort_by(f64::total_cmp);
    figures.note("unshared_1000_refreshes_per_s", (fetched(&driver)? - before) / elapsed);
    figures.note("unshared_1000_first_mount_p50_ms", slowest[slowest.len() / 2]);
    figures.note("unshared_1000_first_mount_p99_ms", *slowest.last().context("no pods")?);
    figures.note("unshared_1000_busiest_second_requests", scene.busiest_second() as f64);
    let oldest = driver.metric("rotation_oldest_success_timestamp_seconds")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    figures.note("unshared_1000_oldest_fetch_s", now - oldest);
    figures.note("unshared_1000_failing_volumes", driver.metric("rotation_volumes_failing")?);
    Ok(())
}

/// Waits until nothing more is written to the API server: status objects follow in the background. Gives the count of writes.
pub(crate) fn settled(driver: &Driver<'_>) -> Result<usize> {
    let (mut last, mut since) = (driver.writes()?, Instant::now());
    wait_for("the driver has told the API server", PATIENCE, || {
        let now = driver.writes()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(since.elapsed() >= Duration::from_secs(1))
    })?;
    Ok(last)
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().with_context(|| format!("the load client does not tell {name}"))
}
