//! The node's wall clock jumps while the driver runs: refreshes continue, logins fail only with a
//! wrong clock, and no loop spins.
//!
//! Debian's libfaketime, preloaded into the driver, reads the time from a file at each call. The
//! monotonic clock stays true, as in a kernel whose clock is set. The emulator keeps the true time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Kind, Permission};
use keyvault_csi_e2e::driver::{DriverSetup, wait_for};
use keyvault_csi_e2e::kubelet::Volume;
use serde_json::{Value, json};

use crate::certificates::openssl;
use crate::harness::{Node, harness};
use crate::mirror_fixture::{Fixture, opaque};
use crate::rotation::metric;
use crate::sharing::pods;

trials! { "clocks":
    files_follow_the_vault_across_jumps_of_a_day_and_of_ten_years,
    a_driver_that_starts_in_another_year_works,
    a_login_by_certificate_fails_with_its_cause_and_recovers,
    a_mirrored_secret_is_updated_across_jumps,
}

/// From the true time a day and ten years ahead, as much behind, and back.
const JUMPS: [&str; 6] = ["+1d", "+10y", "+0", "-1d", "-10y", "+0"];
/// How long a change may take to reach the files; the poll interval is half a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many tokens one identity may request because of one jump:
/// one that seems expired, and one in flight.
const TOKENS: u64 = 2;

/// The library of Debian's package libfaketime, in the directory of this machine's architecture.
fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists());
    found.context("libfaketime is missing: install the package faketime (`make test` does)")
}

/// The clock of one driver.
struct Clock(PathBuf);

impl Clock {
    /// Puts a driver under a clock of its own.
    fn of(setup: &mut DriverSetup) -> Result<Clock> {
        let clock = Clock(setup.folder.join("clock"));
        clock.jump("+0")?;
        for (name, value) in [
            ("LD_PRELOAD", library()?.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Older versions of libfaketime read the first.
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // File times come from the kernel.
            ("NO_FAKE_STAT", "1".to_owned()),
        ] {
            setup.environment.push((name.to_owned(), value));
        }
        Ok(clock)
    }

    /// Sets the clock, relative to true time, in one step.
    fn jump(&self, to: &str) -> Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, to)?;
        Ok(fs::rename(new, &self.0)?)
    }
}

/// The CPU time of a process.
pub(crate) fn cpu_time(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    // User and system time, in hundredths of a second (proc(5)).
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The year of a write by the driver's clock: the generation's name begins with it.
fn year_of_write(target: &Path) -> Result<i64> {
    let generation = fs::read_link(target.join("..data"))?.display().to_string();
    Ok(generation.get(2..6).context("no year")?.parse()?)
}

fn rotating() -> Result<(Node, Clock)> {
    let mut setup = harness().setup();
    setup.flags = ["-v=10", "--enable-secret-rotation", "--rotation-poll-interval=500ms"].map(str::to_owned).to_vec();
    let clock = Clock::of(&mut setup)?;
    Ok((Node::start(setup)?, clock))
}

/// Waits until a file has a value.
fn wait_for_value(file: &Path, value: &str, after: &str) -> Result<()> {
    wait_for(&format!("{} has the new value after {after}", file.display()), PATIENCE, || {
        Ok(fs::read_to_string(file).is_ok_and(|found| found == value))
    })
}

/// Ten cycles must not take more than a part of one CPU.
fn does_not_spin(node: &Node) -> Result<()> {
    let (busy, began) = (cpu_time(node.id())?, Instant::now());
    let cycles = || metric(node, "rotation_reconcile_duration_sec_count", &[]);
    let first = cycles()?;
    wait_for("ten cycles", PATIENCE, || Ok(cycles()? >= first + 10.0))?;
    let share = (cpu_time(node.id())? - busy).as_secs_f64() / began.elapsed().as_secs_f64();
    ensure!(share < 0.6, "the driver used {share:.2} of a CPU");
    // Each of the three fetch keys has at most two cycles a second, with jitter.
    let often = (cycles()? - first) / began.elapsed().as_secs_f64();
    ensure!(often < 12.0, "{often:.0} cycles a second");
    Ok(())
}

fn files_follow_the_vault_across_jumps_of_a_day_and_of_ten_years() -> Result<()> {
    let (node, clock) = rotating()?;
    // A service principal, a workload identity and the node's own identity.
    let (principal, workload, managed) = (harness().vault(), harness().vault(), harness().vault());
    for vault in [&principal, &managed] {
        vault.set("object-0");
    }
    node.class("principal", &principal.parameters(&["object-0"]))?;
    let mut parameters = managed.parameters(&["object-0"]);
    let user = "aaaaaaaa-0000-4000-8000-0000000c10c5";
    harness().azure().add_managed_identity(&managed.tenant, user);
    harness().azure().grant(&managed.name, user, &[Permission::Get]);
    parameters.insert("useVMManagedIdentity".to_owned(), "true".to_owned());
    parameters.insert("userAssignedIdentityID".to_owned(), user.to_owned());
    node.class("managed", &parameters)?;
    let volumes = [
        principal.volume("principal"),
        pods(&node, &workload, 1, 1, 1)?.remove(0),
        Volume::of_class("default", "web", "managed"),
    ];
    let vaults = [&principal, &workload, &managed];
    let files: Vec<PathBuf> =
        volumes.iter().map(|volume| Ok(node.publish(volume)?.join("object-0"))).collect::<Result<_>>()?;
    for jump in JUMPS {
        let tokens = || vaults.map(|vault| vault.entra().get(Kind::Token));
        let fetches = || workload.counters().get(Kind::Get);
        let (before, fetched) = (tokens(), fetches());
        clock.jump(jump)?;
        for _ in 0..3 {
            for (vault, file) in vaults.iter().zip(&files) {
                wait_for_value(file, &vault.set("object-0"), jump)?;
            }
            // The kubelet republishes each minute.
            volumes.iter().try_for_each(|volume| node.publish(volume).map(drop))?;
        }
        let requested: Vec<u64> = tokens().iter().zip(before).map(|(now, before)| now - before).collect();
        // With a service account token that is expired by the driver's clock,
        // each fetch logs in again.
        let most = [TOKENS, TOKENS + fetches() - fetched, TOKENS];
        ensure!(requested.iter().zip(most).all(|(count, most)| *count <= most), "{jump}: {requested:?} token requests");
        // A new pod starts and ends.
        let volume = principal.volume("principal");
        node.publish(&volume).with_context(|| jump.to_owned())?;
        node.kubelet.unpublish(&volume)?;
        does_not_spin(&node).with_context(|| jump.to_owned())?;
        ensure!(node.health("/healthz")?.0 == 200, "{jump}: the driver is not healthy");
        let failed = metric(&node, "rotation_reconcile_error_total", &[])?;
        ensure!(failed == 0.0, "{jump}: {failed} refreshes failed:\n{}", node.log());
    }
    ensure!(!node.log().contains("panicked"), "{}", node.log());
    Ok(())
}

fn a_driver_that_starts_in_another_year_works() -> Result<()> {
    for (jump, years) in [("+10y", 10), ("-10y", -10)] {
        let mut setup = harness().setup();
        setup.flags =
            ["-v=10", "--enable-secret-rotation", "--rotation-poll-interval=500ms"].map(str::to_owned).to_vec();
        let clock = Clock::of(&mut setup)?;
        clock.jump(jump)?;
        let (node, vault) = (Node::start(setup)?, harness().vault());
        let volume = pods(&node, &vault, 1, 1, 1)?.remove(0);
        let target = node.publish(&volume)?;
        let written = year_of_write(&target)?;
        ensure!(
            (written - this_year()? - years).abs() <= 1,
            "the volume was written in {written}: the clock did not jump"
        );
        let file = target.join("object-0");
        wait_for_value(&file, &vault.set("object-0"), jump)?;
        // As when a node's clock is set after its start.
        clock.jump("+0")?;
        wait_for_value(&file, &vault.set("object-0"), "+0")?;
        node.publish(&volume)?;
        node.kubelet.unpublish(&volume)?;
    }
    Ok(())
}

/// This year, by the true clock.
fn this_year() -> Result<i64> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    Ok(1970 + i64::try_from(seconds / 31_556_952)?)
}

/// Entra ID refuses an assertion that was signed in another year. The files stay, and the login
/// works again with the right time.
fn a_login_by_certificate_fails_with_its_cause_and_recovers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let options = ["req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "365", "-subj", "/CN=pod"];
    openssl(&[&options[..], &["-keyout", &path("key.pem"), "-out", &path("cert.pem")]].concat())?;
    let der = openssl(&["x509", "-in", &path("cert.pem"), "-outform", "DER"])?;
    let (node, clock) = rotating()?;
    let vault = harness().vault();
    harness().azure().add_client_certificate(&vault.tenant, &vault.client_id, &der);
    let value = vault.set("object-0");
    node.class("demo", &vault.parameters(&["object-0"]))?;
    let mut volume = Volume::of_class("default", "web", "demo");
    let (key, certificate) = (fs::read_to_string(path("key.pem"))?, fs::read_to_string(path("cert.pem"))?);
    harness().secrets.lock().unwrap().push(key[key.len() / 2..key.len() / 2 + 40].to_owned());
    for (name, text) in [("clientid", &vault.client_id), ("tls.key", &key), ("tls.crt", &certificate)] {
        volume.secrets.insert(name.to_owned(), text.clone());
    }
    let file = node.publish(&volume)?.join("object-0");
    for jump in ["+1d", "+10y", "-10y"] {
        clock.jump(jump)?;
        // Another application with the same certificate, which has no token yet.
        let other = harness().vault_in_tenant(&vault.suffix, Some(&vault.tenant));
        harness().azure().add_client_certificate(&other.tenant, &other.client_id, &der);
        other.set("object-0");
        node.class("other", &other.parameters(&["object-0"]))?;
        let mut pod = volume.clone();
        pod.uid = Volume::of_class("default", "web", "other").uid;
        pod.attributes.insert("secretProviderClass".to_owned(), "other".to_owned());
        pod.secrets.insert("clientid".to_owned(), other.client_id.clone());
        let status = node.refused(&pod)?;
        ensure!(
            status.message().contains("clock") && status.message().contains("CredentialsRejected"),
            "{jump}: {status}"
        );
        ensure!(fs::read_to_string(&file)? == value, "the files of the other pod are gone");
        // The clock is set right.
        clock.jump("+0")?;
        node.publish(&pod).with_context(|| format!("back from {jump}"))?;
        node.kubelet.unpublish(&pod)?;
    }
    wait_for_value(&file, &vault.set("object-0"), "+0")
}

/// A Secret records when its content was written; a time in the future must not prevent an update.
fn a_mirrored_secret_is_updated_across_jumps() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    let user = fixture.cluster.user(crate::apiserver::Rights::Sync)?;
    let flags = ["--sync-secret=true", "--enable-secret-rotation", "--rotation-poll-interval=500ms"];
    let mut setup = fixture.setup(&user, "a", flags.into_iter());
    let clock = Clock::of(&mut setup)?;
    let node = Node::start(setup)?;
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    node.publish(&fixture.pod("web", "a", "demo", &Value::Null)?)?;
    fixture.holds("shop", "k", &value)?;
    for jump in JUMPS {
        clock.jump(jump)?;
        let value = fixture.vault.set("a");
        fixture.holds("shop", "k", &value).with_context(|| jump.to_owned())?;
    }
    ensure!(fixture.events("FailedToCreateSecret")?.is_empty(), "{:?}", fixture.events("FailedToCreateSecret")?);
    Ok(())
}
