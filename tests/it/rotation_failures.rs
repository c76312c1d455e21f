//! Refreshes that fail, are interrupted, or finish too late: the files stay whole, and nothing is
//! written without a mount.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::wait_for;

use crate::harness::{Node, Vault, class_manifest, harness, mounts_on};
use crate::rotation::{PATIENCE, cycles, metric, rotating};

trials! { "rotation_failures":
    a_vault_that_fails_for_a_while_costs_no_file,
    refreshes_after_an_outage_keep_the_rate_limit,
    a_driver_killed_while_it_refreshes_leaves_whole_volumes,
    a_refresh_that_ends_after_an_unpublish_writes_nothing,
    a_refresh_that_finds_no_mount_writes_nothing,
    a_restarted_driver_resumes_rotation,
    an_interrupted_write_is_repaired_after_a_restart,
    a_mount_that_was_never_filled_is_published_again,
    credentials_that_are_not_renewed_are_dropped,
    a_new_client_secret_is_used_from_the_next_call_on,
}

fn class(node: &Node, vault: &Vault) -> Result<()> {
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))
}

fn holds(target: &Path, value: &str) -> Result<bool> {
    Ok(fs::read_to_string(target.join("password"))? == value)
}

fn a_vault_that_fails_for_a_while_costs_no_file() -> Result<()> {
    let (node, vault) = (rotating("500ms", &[])?, harness().vault());
    class(&node, &vault)?;
    let targets: Vec<_> = (0..5).map(|_| node.publish(&vault.volume("demo"))).collect::<Result<_, _>>()?;
    let before = fs::read_to_string(targets[0].join("password"))?;
    harness().azure().add_fault(Fault::new(Action::status(503)).host(&vault.name));
    let known = harness().azure().journal().last().map_or(0, |entry| entry.sequence);
    let value = vault.set("password");
    wait_for("five cycles failed", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"VaultUnavailable\""])? >= 25.0)
    })?;
    for target in &targets {
        ensure!(holds(target, &before)?);
    }
    wait_for(
        "the number of failing volumes",
        PATIENCE,
        || Ok(metric(&node, "rotation_volumes_failing{", &[])? == 5.0),
    )?;
    assert_eq!(node.log().matches("volumes cannot be refreshed").count(), 1, "one line in the log");
    harness().azure().clear_faults(&vault.name);
    let began = Instant::now();
    for target in &targets {
        wait_for("a refresh", PATIENCE, || holds(target, &value))?;
    }
    // The interval, and the pause between two tries.
    ensure!(began.elapsed() < Duration::from_secs(6), "only after {:?}", began.elapsed());
    let journal = harness().azure().journal();
    let times: Vec<i64> = journal
        .iter()
        .filter(|entry| entry.service == vault.name && entry.sequence > known)
        .map(|entry| entry.arrived_ms)
        .collect();
    let most = most_in_a_second(&times);
    ensure!(most <= 8, "{most} requests in a second for one object");
    Ok(())
}

/// Returns the largest number of these times (in milliseconds) within any second.
fn most_in_a_second(times: &[i64]) -> usize {
    let within = |from: &i64| times.iter().filter(|at| (*from..from + 1_000).contains(*at)).count();
    times.iter().map(within).max().unwrap_or_default()
}

/// Six classes grow to 180 objects as soon as the vault recovers: all are due at once, with a
/// budget of twenty requests a second.
fn refreshes_after_an_outage_keep_the_rate_limit() -> Result<()> {
    const RATE: usize = 20;
    let (node, vault) = (rotating("15s", &["--vault-requests-per-second=20"])?, harness().vault());
    let objects = |class: usize| -> Vec<String> { (0..30).map(|object| format!("o-{class}-{object}")).collect() };
    // In one file, so that all change at the same moment.
    let classes = |count: usize| -> Result<()> {
        let manifests = (0..6).map(|class| {
            let names = objects(class);
            let names: Vec<&str> = names.iter().map(String::as_str).take(count).collect();
            class_manifest("default", &format!("c{class}"), Some("azure"), &vault.parameters(&names))
        });
        node.manifest("classes.yaml", &manifests.collect::<Vec<_>>().join("\n---\n"))
    };
    (0..6).flat_map(objects).for_each(|name| drop(vault.set(&name)));
    classes(1)?;
    let volumes: Vec<_> = (0..6).map(|class| vault.volume(&format!("c{class}"))).collect();
    let targets: Vec<_> = volumes.iter().map(|volume| node.publish(volume)).collect::<Result<_, _>>()?;
    harness().azure().add_fault(Fault::new(Action::status(503)).host(&vault.name));
    wait_for("the circuit opens", PATIENCE, || {
        Ok(metric(&node, "keyvault_backoff_vaults{", &["reason=\"circuit_open\""])? >= 1.0)
    })?;
    let known = harness().azure().journal().last().map_or(0, |entry| entry.sequence);
    harness().azure().clear_faults(&vault.name);
    wait_for("the circuit closes", PATIENCE, || {
        Ok(metric(&node, "keyvault_backoff_vaults{", &["reason=\"circuit_open\""])? == 0.0)
    })?;
    classes(30)?;
    wait_for("all objects", PATIENCE, || {
        let whole = |(class, target): (usize, &std::path::PathBuf)| {
            objects(class).iter().all(|name| target.join(name).exists())
        };
        Ok(targets.iter().enumerate().all(whole))
    })?;
    let journal = harness().azure().journal();
    let times: Vec<i64> = journal
        .iter()
        .filter(|entry| entry.service == vault.name && entry.sequence > known)
        .map(|entry| entry.arrived_ms)
        .collect();
    ensure!(times.len() >= 180, "{} requests only", times.len());
    let most = most_in_a_second(&times);
    // The budget is the rate, and a burst of 64 (docs/decisions.md#d7).
    ensure!(most <= RATE + 64, "{most} requests in a second");
    Ok(())
}

fn a_driver_killed_while_it_refreshes_leaves_whole_volumes() -> Result<()> {
    let (mut node, vault) = (rotating("50ms", &[])?, harness().vault());
    let names = ["one", "two", "three"];
    let values = || names.map(|name| vault.set(name));
    let mut old = values();
    node.class("demo", &vault.parameters(&names))?;
    let volumes: Vec<_> = (0..4).map(|_| vault.volume("demo")).collect();
    for volume in &volumes {
        node.publish(volume)?;
    }
    let (mut seed, mut counts) = (0x2545_F491_4F6C_DD1D_u64, [0, 0, 0]);
    let entries = |target: &Path| fs::read_dir(target).map(Iterator::count).unwrap_or_default();
    for round in 0..80 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let watched = node.kubelet.target(&volumes[seed as usize % volumes.len()]);
        let whole = entries(&watched);
        let new = values();
        let until = Instant::now() + Duration::from_micros(seed % 70_000 * if round % 2 == 0 { 10 } else { 1 });
        while Instant::now() < until {
            // In every other round, wait for the middle of a write, when a second generation
            // exists.
            if round % 2 == 0 && entries(&watched) != whole {
                break;
            }
        }
        node = Node::start(node.driver.kill()?)?;
        let mut fresh = 0;
        for volume in &volumes {
            let target = node.kubelet.target(volume);
            for ((name, old), new) in names.iter().zip(&old).zip(&new) {
                let found = fs::read_to_string(target.join(name))?;
                ensure!(&found == old || &found == new, "{name} has neither value");
                fresh += usize::from(&found == new);
            }
        }
        counts[match fresh {
            0 => 0,
            12 => 2,
            _ => 1,
        }] += 1;
        for volume in &volumes {
            node.publish(volume)?;
        }
        for volume in &volumes {
            wait_for("a refresh after the restart, and one generation", PATIENCE, || {
                is_refreshed(&node.kubelet.target(volume), &names, &new)
            })?;
        }
        old = new;
    }
    ensure!(counts[0] > 0 && counts[2] > 0, "all restarts were at the same step: {counts:?}");
    Ok(())
}

/// Whether a volume has these values, one generation, and nothing else with a name of the driver's
/// own.
fn is_refreshed(target: &Path, names: &[&str], values: &[String]) -> Result<bool> {
    let holds =
        |(name, value): (&&str, &String)| fs::read_to_string(target.join(name)).is_ok_and(|read| read == *value);
    let entries = fs::read_dir(target)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.iter().zip(values).all(holds) && entries.filter(|name| name.starts_with("..")).count() == 2)
}

/// Waits until a fetch is in progress that will get a new value; returns the number of cycles
/// before it.
fn fetching(node: &Node, vault: &Vault) -> Result<f64> {
    harness().azure().add_fault(Fault::new(Action::latency(Duration::from_secs(1))).host(&vault.name).kind(Kind::Get));
    harness().azure().reset_counters(&vault.name);
    wait_for("the request to the vault", PATIENCE, || Ok(vault.counters().get(Kind::Get) == 1))?;
    // The emulator reads its objects after the delay.
    vault.set("password");
    cycles(node)
}

fn a_refresh_that_ends_after_an_unpublish_writes_nothing() -> Result<()> {
    let (node, vault) = (rotating("100ms", &[])?, harness().vault());
    class(&node, &vault)?;
    let volumes = [vault.volume("demo"), vault.volume("demo")];
    let target = node.publish(&volumes[0])?;
    node.publish(&volumes[1])?;
    let before = fetching(&node, &vault)?;
    node.kubelet.unpublish(&volumes[0])?;
    // A directory of the host, as after a reboot or a new call of the kubelet.
    fs::create_dir_all(&target)?;
    wait_for("the fetch finishes", PATIENCE, || Ok(cycles(&node)? > before))?;
    ensure!(fs::read_dir(&target)?.next().is_none(), "plain text on the host's disk");
    ensure!(mounts_on(&target)?.is_empty());
    wait_for("the other volume is written", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_total", &["rotated=\"true\""])? >= 1.0)
    })?;
    assert_eq!(metric(&node, "rotation_reconcile_error_total", &[])?, 0.0);
    Ok(())
}

fn a_refresh_that_finds_no_mount_writes_nothing() -> Result<()> {
    let (node, vault) = (rotating("100ms", &[])?, harness().vault());
    class(&node, &vault)?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    fetching(&node, &vault)?;
    nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH)?;
    ensure!(target.is_dir() && mounts_on(&target)?.is_empty());
    wait_for("the driver notices", PATIENCE, || Ok(node.log().contains("a volume is gone; nothing is written")))?;
    ensure!(fs::read_dir(&target)?.next().is_none(), "plain text on the host's disk");
    // The next call mounts it again.
    node.publish(&volume)?;
    ensure!(target.join("password").exists() && mounts_on(&target)?.len() == 1);
    Ok(())
}

fn a_restarted_driver_resumes_rotation() -> Result<()> {
    let (node, vault) = (rotating("200ms", &[])?, harness().vault());
    class(&node, &vault)?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let node = Node::start(node.driver.kill()?)?;
    let value = vault.set("password");
    harness().azure().reset_counters(&vault.name);
    assert_eq!(metric(&node, "rotation_volumes{", &[])?, 0.0);
    node.publish(&volume)?;
    wait_for("a refresh", PATIENCE, || holds(&target, &value))?;
    // From then on it writes nothing, since it has the digest of its write.
    let generation = fs::read_link(target.join("..data"))?;
    let before = cycles(&node)?;
    wait_for("some cycles", PATIENCE, || Ok(cycles(&node)? >= before + 5.0))?;
    assert_eq!(fs::read_link(target.join("..data"))?, generation);
    Ok(())
}

/// The state after a driver was killed right after the rename of `..data`.
fn an_interrupted_write_is_repaired_after_a_restart() -> Result<()> {
    let (node, vault) = (rotating("1h", &[])?, harness().vault());
    class(&node, &vault)?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let setup = node.driver.kill()?;
    fs::remove_file(target.join("password"))?;
    fs::create_dir(target.join("..old"))?;
    let node = Node::start(setup)?;
    node.publish(&volume)?;
    ensure!(target.join("password").exists() && !target.join("..old").exists());
    Ok(())
}

/// The state after a driver was killed between the mount and the write, on kernels without the
/// mount API.
fn a_mount_that_was_never_filled_is_published_again() -> Result<()> {
    let (node, vault) = (rotating("200ms", &[])?, harness().vault());
    class(&node, &vault)?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    // The driver has the volume in its registry, although the files are gone.
    for entry in fs::read_dir(&target)? {
        let path = entry?.path();
        if path.is_symlink() { fs::remove_file(path)? } else { fs::remove_dir_all(path)? }
    }
    node.publish(&volume)?;
    ensure!(target.join("password").exists());
    let value = vault.set("password");
    wait_for("a refresh", PATIENCE, || holds(&target, &value))
}

fn credentials_that_are_not_renewed_are_dropped() -> Result<()> {
    let (node, vault) = (rotating("200ms", &["--republish-period=500ms"])?, harness().vault());
    class(&node, &vault)?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let before = fs::read_to_string(target.join("password"))?;
    let calls = Instant::now();
    while calls.elapsed() < Duration::from_secs(3) {
        node.publish(&volume)?;
    }
    assert_eq!(metric(&node, "rotation_reconcile_error_total", &[])?, 0.0, "each call renews the credentials");
    wait_for("the credentials are dropped", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"CredentialsMissing\""])? >= 1.0)
    })?;
    ensure!(node.log().contains("requiresRepublish"));
    let value = vault.set("password");
    let gets = vault.counters().get(Kind::Get);
    ensure!(holds(&target, &before)?);
    wait_for("some more cycles", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"CredentialsMissing\""])? >= 5.0)
    })?;
    assert_eq!(vault.counters().get(Kind::Get), gets);
    ensure!(holds(&target, &before)?);
    node.publish(&volume)?;
    wait_for("another refresh", PATIENCE, || holds(&target, &value))
}

fn a_new_client_secret_is_used_from_the_next_call_on() -> Result<()> {
    let (node, mut vault) = (rotating("300ms", &[])?, harness().vault());
    class(&node, &vault)?;
    let mut volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    harness().azure().expire_client_secret(&vault.tenant, &vault.client_id);
    harness().azure().revoke_tokens(&vault.client_id);
    let value = vault.set("password");
    wait_for("the secret is refused", PATIENCE, || {
        Ok(metric(&node, "rotation_reconcile_error_total", &["reason=\"CredentialsRejected\""])? >= 1.0)
    })?;
    vault.client_secret = harness().secret("client");
    harness().azure().add_client(&vault.tenant, &vault.client_id, &vault.client_secret);
    volume = volume.with_service_principal(&vault.client_id, &vault.client_secret);
    node.publish(&volume)?;
    wait_for("a refresh", PATIENCE, || holds(&target, &value))
}
