//! Rotation: what refreshes cost, when they happen, and what readers see.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Kind, ObjectAttributes};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;

use crate::harness::{Node, Vault, class_manifest, harness};
use crate::sharing::{pods, publish_all};

trials! { "rotation":
    twenty_quiet_cycles_of_a_hundred_volumes_cost_ten_gets_each_and_write_nothing,
    a_new_value_is_in_a_hundred_volumes_within_the_interval,
    no_reader_sees_a_mixture_in_two_hundred_rotations,
    a_changed_class_is_fetched_at_once,
    an_annotation_triggers_a_refresh_at_once,
    with_rotation_off_nothing_is_refreshed,
    a_first_mount_has_priority_over_refreshes,
    a_republish_costs_no_request_and_never_fails,
    a_volume_gets_only_what_its_identity_may_read,
    the_next_expiration_is_in_the_metrics,
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a driver that rotates at this interval, with the default freshness window.
pub(crate) fn rotating(interval: &str, more: &[&str]) -> Result<Node> {
    let mut setup = harness().setup();
    setup.flags = vec!["-v=10".to_owned(), "--enable-secret-rotation".to_owned()];
    setup.flags.push(format!("--rotation-poll-interval={interval}"));
    setup.flags.extend(more.iter().map(|&flag| flag.to_owned()));
    Node::start(setup)
}

/// Returns the sum of the series of a metric whose lines have all these parts; 0 without one.
pub(crate) fn metric(node: &Node, name: &str, parts: &[&str]) -> Result<f64> {
    let text = node.metrics()?;
    harness().remember(&text);
    let fits = |line: &&str| line.starts_with(name) && parts.iter().all(|part| line.contains(part));
    let values = text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// Returns the number of successful cycles.
pub(crate) fn cycles(node: &Node) -> Result<f64> {
    metric(node, "rotation_reconcile_duration_sec_count", &[])
}

/// Returns what changes with each write of a volume: inode and times of target, link and files.
fn fingerprint(target: &Path) -> Result<Vec<(PathBuf, u64, i64, i64)>> {
    let data = target.join("..data");
    let mut seen = Vec::new();
    let mut look = |path: PathBuf| -> Result<()> {
        let facts = fs::symlink_metadata(&path)?;
        seen.push((path, facts.ino(), facts.ctime(), facts.ctime_nsec()));
        Ok(())
    };
    look(target.to_owned())?;
    look(data.clone())?;
    for entry in fs::read_dir(&data)? {
        look(entry?.path())?;
    }
    Ok(seen)
}

fn twenty_quiet_cycles_of_a_hundred_volumes_cost_ten_gets_each_and_write_nothing() -> Result<()> {
    let (node, vault) = (rotating("300ms", &[])?, harness().vault());
    let volumes = pods(&node, &vault, 10, 1, 100)?;
    publish_all(&node, &volumes)?;
    let fingerprints = |volumes: &[Volume]| -> Result<Vec<_>> {
        volumes.iter().map(|volume| fingerprint(&node.kubelet.target(volume))).collect()
    };
    let before = fingerprints(&volumes)?;
    let first = cycles(&node)?;
    wait_for("twenty cycles", PATIENCE, || Ok(cycles(&node)? >= first + 20.0))?;
    // True only between two cycles. After one GET too many the numbers never become equal again.
    wait_for("ten GETs a cycle", Duration::from_secs(5), || {
        let gets = vault.counters().get(Kind::Get) - 10;
        let cycles = cycles(&node)?;
        ensure!(gets as f64 <= 10.0 * (cycles + 1.0), "{gets} GETs in {cycles} cycles");
        Ok(gets as f64 == 10.0 * cycles && vault.counters().get(Kind::Get) - 10 == gets)
    })?;
    assert_eq!(vault.entra().total(), 1, "one token");
    ensure!(fingerprints(&volumes)? == before, "a file was written");
    assert_eq!(metric(&node, "rotation_reconcile_total", &["rotated=\"true\""])?, 0.0);
    ensure!(metric(&node, "rotation_reconcile_total", &["rotated=\"false\""])? >= 1_900.0);
    wait_for("the number of volumes", PATIENCE, || Ok(metric(&node, "rotation_volumes{", &[])? == 100.0))?;
    Ok(())
}

fn a_new_value_is_in_a_hundred_volumes_within_the_interval() -> Result<()> {
    let (node, vault) = (rotating("1s", &[])?, harness().vault());
    let volumes = pods(&node, &vault, 10, 1, 100)?;
    publish_all(&node, &volumes)?;
    let value = vault.set("object-7");
    let began = Instant::now();
    let targets: Vec<PathBuf> = volumes.iter().map(|volume| node.kubelet.target(volume).join("object-7")).collect();
    wait_for("the value in all volumes", PATIENCE, || {
        Ok(targets.iter().all(|file| fs::read_to_string(file).is_ok_and(|found| found == value)))
    })?;
    ensure!(began.elapsed() < Duration::from_secs(6), "only after {:?}", began.elapsed());
    wait_for("the number of refreshes", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_total", &["rotated=\"true\""])? == 100.0)
    })
}

/// Returns the parameters for two files of one secret: a fetch gets it once, so both are equal in
/// every generation.
fn twins(vault: &Vault) -> std::collections::BTreeMap<String, String> {
    let object =
        |alias: &str| format!("  - |\n    objectName: twin\n    objectType: secret\n    objectAlias: {alias}\n");
    vault.parameters_of(&format!("array:\n{}{}", object("one"), object("two")))
}

/// Repeats a read whose path the driver switched and removed while the kernel followed it. A file
/// that is missing stays missing.
fn across_switches<T>(mut read: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    for _ in 0..100 {
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            found => return found,
        }
    }
    read()
}

fn no_reader_sees_a_mixture_in_two_hundred_rotations() -> Result<()> {
    let (node, vault) = (rotating("20ms", &[])?, harness().vault());
    vault.set("twin");
    node.class("demo", &twins(&vault))?;
    let target = node.publish(&vault.volume("demo"))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<usize> {
            let mut generations = std::collections::BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                // A careful reader keeps one generation's directory open.
                let pinned = across_switches(|| fs::File::open(target.join("..data")))?;
                let held = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pinned)));
                let (one, two) = (fs::read_to_string(held.join("one")), fs::read_to_string(held.join("two")));
                // The driver may remove an old generation while the reader has it open.
                if let (Ok(one), Ok(two)) = (one, two) {
                    ensure!(one == two, "a mixture: {one} and {two}");
                    generations.insert(one);
                }
                // A careless reader opens the links: it never sees an empty or missing file.
                for name in ["one", "two"] {
                    let found = across_switches(|| fs::read_to_string(target.join(name)));
                    ensure!(found.as_ref().is_ok_and(|found| found.starts_with("s3cr3t-")), "{name}: {found:?}");
                }
            }
            Ok(generations.len())
        });
        let rotations = (0..200).try_for_each(|_| {
            let value = vault.set("twin");
            wait_for("the new value", PATIENCE, || {
                Ok(across_switches(|| fs::read_to_string(target.join("two")))? == value)
            })
        });
        done.store(true, Ordering::Relaxed);
        let seen = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        rotations?;
        ensure!(seen > 100, "the reader saw {seen} generations only");
        Ok(())
    })
}

fn a_changed_class_is_fetched_at_once() -> Result<()> {
    let (node, vault) = (rotating("1h", &[])?, harness().vault());
    let (first, second) = (vault.set("first"), vault.set("second"));
    node.class("demo", &vault.parameters(&["first"]))?;
    node.class("other", &vault.parameters(&["first"]))?;
    let volumes: Vec<Volume> = (0..3).map(|_| vault.volume("demo")).collect();
    let target = node.publish(&volumes[0])?;
    for volume in &volumes {
        node.publish(volume)?;
    }
    let untouched = node.publish(&vault.volume("other"))?;
    harness().azure().reset_counters(&vault.name);
    node.class("demo", &vault.parameters(&["second"]))?;
    for volume in &volumes {
        let target = node.kubelet.target(volume);
        wait_for("the object appears", PATIENCE, || {
            Ok(fs::read_to_string(target.join("second")).is_ok_and(|found| found == second))
        })?;
        ensure!(!target.join("first").exists(), "an object remains that the class does not have any more");
    }
    assert_eq!(vault.counters().get(Kind::Get), 1);
    // A class with a mistake changes nothing, and the driver notices its correction.
    node.class("demo", &vault.parameters_of("array: nonsense"))?;
    wait_for("the mistake is counted", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"ClassInvalid\""])? >= 3.0)
    })?;
    assert_eq!(fs::read_to_string(target.join("second"))?, second);
    node.class("demo", &vault.parameters(&["first", "second"]))?;
    wait_for("both objects", PATIENCE, || Ok(fs::read_to_string(target.join("first")).is_ok_and(|f| f == first)))?;
    assert_eq!(
        fs::read_dir(&untouched)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|n| !n.starts_with(".."))
            .count(),
        1
    );
    wait_for("no failing volume", PATIENCE, || Ok(metric(&node, "rotation_volumes_failing{", &[])? == 0.0))?;
    Ok(())
}

fn an_annotation_triggers_a_refresh_at_once() -> Result<()> {
    let (node, vault) = (rotating("1h", &[])?, harness().vault());
    vault.set("password");
    let class = |refresh: &str, name: &str| -> Result<()> {
        let text = class_manifest("default", name, Some("azure"), &vault.parameters(&["password"]));
        let mut object: serde_json::Value = serde_json::from_str(&text)?;
        object["metadata"]["annotations"] = serde_json::json!({ "keyvault-csi/refresh": refresh });
        node.manifest(&format!("{name}.yaml"), &object.to_string())
    };
    class("1", "demo")?;
    class("1", "other")?;
    let (target, other) = (node.publish(&vault.volume("demo"))?, node.publish(&vault.volume("other"))?);
    let value = vault.set("password");
    class("2", "demo")?;
    wait_for("a refresh", PATIENCE, || Ok(fs::read_to_string(target.join("password"))? == value))?;
    ensure!(fs::read_to_string(other.join("password"))? != value, "a refresh without a change of the annotation");
    Ok(())
}

fn with_rotation_off_nothing_is_refreshed() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let value = vault.set("first");
    vault.set("second");
    node.class("demo", &vault.parameters(&["first"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let before = fingerprint(&target)?;
    harness().azure().reset_counters(&vault.name);
    vault.set("first");
    node.class("demo", &vault.parameters(&["first", "second"]))?;
    // The driver has read the new class: a new volume has its objects.
    ensure!(node.publish(&vault.volume("demo"))?.join("second").exists());
    assert_eq!(vault.counters().get(Kind::Get), 2);
    node.publish(&volume)?;
    ensure!(fingerprint(&target)? == before && fs::read_to_string(target.join("first"))? == value);
    ensure!(!node.log().contains("rotation is on") && !node.metrics()?.contains("rotation_"));
    Ok(())
}

/// Refreshes that need more than the budget of twenty requests a second all the time.
fn a_first_mount_has_priority_over_refreshes() -> Result<()> {
    let (node, vault) = (rotating("50ms", &["--vault-requests-per-second=20"])?, harness().vault());
    let names: Vec<String> = (0..120).map(|number| format!("many-{number}")).collect();
    names.iter().for_each(|name| drop(vault.set(name)));
    for class in 0..6 {
        let names: Vec<&str> = names[class * 20..(class + 1) * 20].iter().map(String::as_str).collect();
        node.class(&format!("many-{class}"), &vault.parameters(&names))?;
        node.publish(&vault.volume(&format!("many-{class}")))?;
    }
    let few = ["few-0", "few-1", "few-2"];
    few.iter().for_each(|name| drop(vault.set(name)));
    node.class("few", &vault.parameters(&few))?;
    // The burst is used up, and dozens of requests wait: six fetches of sixteen concurrent
    // requests.
    wait_for("many requests of refreshes", PATIENCE, || Ok(vault.counters().get(Kind::Get) >= 250))?;
    for _ in 0..5 {
        let began = Instant::now();
        let mut volume = vault.volume("few");
        volume.pod = "first".to_owned();
        node.publish(&volume)?;
        node.kubelet.unpublish(&volume)?;
        let took = began.elapsed();
        // Three requests take 150 ms; behind the refreshes they would take four seconds.
        ensure!(took < Duration::from_millis(1_500), "a mount waited {took:?}");
    }
    Ok(())
}

fn a_republish_costs_no_request_and_never_fails() -> Result<()> {
    let (node, vault) = (rotating("1h", &[])?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    for place in [&vault.name, &vault.tenant] {
        harness().azure().reset_counters(place);
    }
    let before = fingerprint(&target)?;
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let began = Instant::now();
            node.publish(&volume)?;
            Ok(began.elapsed())
        })
        .collect::<Result<_>>()?;
    times.sort();
    // This includes the connection and the kubelet's part.
    ensure!(times[50] < Duration::from_millis(20), "{:?}", times[50]);
    // With a missing class, and with calls without secrets, attributes or pod info.
    fs::remove_file(node.setup().manifests().join("demo.yaml"))?;
    node.publish(&volume)?;
    let bare = Volume { secrets: std::collections::BTreeMap::new(), ..volume.clone() };
    node.publish(&bare)?;
    node.publish(&Volume { attributes: std::collections::BTreeMap::new(), ..volume.clone() })?;
    let mut request = node.kubelet.publish_request(&volume);
    request.volume_context.retain(|key, _| !key.ends_with("pod.name"));
    node.kubelet.send(request, Duration::from_secs(10))?;
    assert_eq!(vault.counters().total() + vault.entra().total(), 0);
    ensure!(fingerprint(&target)? == before);
    Ok(())
}

/// Two identities with one class are two fetches: when one loses its permission, the other one
/// still gets the object.
fn a_volume_gets_only_what_its_identity_may_read() -> Result<()> {
    let (node, vault) = (rotating("200ms", &[])?, harness().vault());
    let volumes = pods(&node, &vault, 1, 21, 42)?;
    publish_all(&node, &volumes)?;
    // The twenty-first service account has a client of its own.
    let lone = volumes[20].attributes.get("clientID").context("no client")?.clone();
    ensure!(volumes[0].attributes.get("clientID") != Some(&lone));
    harness().azure().revoke_grant(&vault.name, &lone, &[azure_emulator::Permission::Get]);
    wait_for("the fetch is refused", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"Forbidden\""])? >= 2.0)
    })?;
    let value = vault.set("object-0");
    for (number, volume) in volumes.iter().enumerate().filter(|(number, _)| number % 21 != 20) {
        let file = node.kubelet.target(volume).join("object-0");
        wait_for(&format!("the value in volume {number}"), PATIENCE, || Ok(fs::read_to_string(&file)? == value))?;
    }
    let after = cycles(&node)? + 42.0;
    wait_for("two more cycles of each fetch", PATIENCE, || Ok(cycles(&node)? >= after))?;
    for volume in [&volumes[20], &volumes[41]] {
        ensure!(
            fs::read_to_string(node.kubelet.target(volume).join("object-0"))? != value,
            "the identity may not read this"
        );
    }
    Ok(())
}

fn the_next_expiration_is_in_the_metrics() -> Result<()> {
    let (node, vault) = (rotating("200ms", &[])?, harness().vault());
    let now = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
    let set = |name: &str, version: u8, lifetime: Option<i64>| {
        let created = Some(now - 1_000 + i64::from(version));
        let expires = lifetime.map(|lifetime| now + lifetime);
        let attributes = ObjectAttributes { created, expires, ..Default::default() };
        let id = format!("{version:032}");
        harness().azure().set_secret_version(&vault.name, name, &id, &harness().secret(name), attributes);
    };
    let expires_within = |least: f64, most: f64| -> Result<()> {
        wait_for(&format!("an expiry between {least} and {most}"), PATIENCE, || {
            let expires = metric(&node, "rotation_next_expiration_timestamp_seconds{", &[])?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
            Ok((least..=most).contains(&(expires - now)))
        })
    };
    set("late", 1, Some(90_000));
    set("never", 1, None);
    node.class("demo", &vault.parameters(&["late", "never"]))?;
    node.publish(&vault.volume("demo"))?;
    expires_within(89_000.0, 90_000.0)?;
    set("never", 2, Some(5_000));
    expires_within(4_000.0, 5_000.0)?;
    // A new version without an expiration replaces it.
    set("never", 3, None);
    expires_within(89_000.0, 90_000.0)
}
