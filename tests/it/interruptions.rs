//! Cancelled calls, killed drivers, and unpublishes during a publish:
//! the volume is complete or absent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use azure_emulator::{Action, Fault, Kind};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use tonic::Code;

use crate::harness::{Node, Vault, harness, mounts_on};

trials! { "interruptions":
    a_caller_that_hangs_up_leaves_a_whole_volume_or_nothing,
    a_killed_driver_leaves_nothing_that_the_next_publish_cannot_use,
    a_driver_killed_while_it_unpublishes_leaves_no_half_volume,
    an_unpublish_wins_over_a_publish_that_still_fetches,
    a_tree_that_the_kubelet_removed_is_not_created_again,
    two_publishes_of_one_volume_make_one_mount,
    many_pods_at_once_all_start,
}

const OBJECTS: [&str; 3] = ["first", "second", "third"];

fn ready() -> Result<(Node, Vault, Vec<String>)> {
    let (node, vault) = (harness().node()?, harness().vault());
    let values = OBJECTS.map(|name| vault.set(name)).to_vec();
    node.class("demo", &vault.parameters(&OBJECTS))?;
    Ok((node, vault, values))
}

/// Whether the volume is complete; fails if it is neither complete nor absent.
fn whole(target: &Path, values: &[String]) -> Result<bool> {
    if mounts_on(target)?.is_empty() {
        ensure!(!target.exists(), "{} is a bare directory", target.display());
        return Ok(false);
    }
    for (name, value) in OBJECTS.iter().zip(values) {
        let found = fs::read_to_string(target.join(name)).with_context(|| format!("half a volume: {name}"))?;
        ensure!(&found == value, "half a volume: {name}");
    }
    assert_eq!(mounts_on(target)?.len(), 1);
    Ok(true)
}

fn a_caller_that_hangs_up_leaves_a_whole_volume_or_nothing() -> Result<()> {
    let (node, vault, values) = ready()?;
    harness().azure().add_fault(Fault::new(Action::latency(Duration::from_millis(5))).host(&vault.name));
    let volumes: Vec<Volume> = (0..200).map(|_| vault.volume("demo")).collect();
    for (number, volume) in volumes.iter().enumerate() {
        // Cancelled at a time from before the driver reads the request
        // until after its response, in steps of 0.2 ms.
        node.kubelet.publish_and_disconnect(volume, Duration::from_micros(200 * number as u64))?;
    }
    // The driver answers this call after it has read all requests before it.
    node.publish(&vault.volume("demo"))?;
    // Each call that reached the driver finishes, also without its caller.
    let finished = |log: &str| log.matches("\"volume published\"").count() + log.matches("\"publish failed\"").count();
    let started = |log: &str| log.matches("\"node publish volume\"").count();
    wait_for("all publishes finish", Duration::from_secs(30), || {
        let log = node.log();
        Ok(started(&log) == finished(&log))
    })?;
    let mut counts = [0, 0];
    for volume in &volumes {
        let target = node.kubelet.target(volume);
        counts[usize::from(whole(&target, &values)?)] += 1;
        node.publish(volume)?;
        ensure!(whole(&target, &values)?);
        node.kubelet.unpublish(volume)?;
    }
    // The driver continues without the caller, so nearly all are complete;
    // the rest never reached the driver.
    ensure!(counts[1] > 100, "too few volumes are complete: {counts:?}");
    Ok(())
}

fn a_killed_driver_leaves_nothing_that_the_next_publish_cannot_use() -> Result<()> {
    let (mut node, vault, values) = ready()?;
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut counts = [0, 0];
    for _ in 0..200 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let moment = Duration::from_micros(seed % 80_000);
        let volume = vault.volume("demo");
        node.kubelet.publish_and_disconnect(&volume, moment)?;
        let target = node.kubelet.target(&volume);
        node = Node::start(node.driver.kill()?)?;
        if mounts_on(&target)?.is_empty() {
            counts[0] += 1;
        } else {
            ensure!(whole(&target, &values)?, "half a volume after SIGKILL");
            counts[1] += 1;
        }
        node.publish(&volume)?;
        ensure!(whole(&target, &values)?);
        node.kubelet.unpublish(&volume)?;
    }
    ensure!(counts[0] > 0 && counts[1] > 0, "all kills had the same outcome: {counts:?}");
    Ok(())
}

fn a_driver_killed_while_it_unpublishes_leaves_no_half_volume() -> Result<()> {
    let (mut node, vault, values) = ready()?;
    for round in 0..50_u64 {
        let volume = vault.volume("demo");
        node.publish(&volume)?;
        std::thread::scope(|scope| {
            let unpublishing = scope.spawn(|| node.kubelet.unpublish(&volume));
            let until = std::time::Instant::now() + Duration::from_micros(20 * round);
            while std::time::Instant::now() < until && !unpublishing.is_finished() {}
            node.signal(nix::sys::signal::Signal::SIGKILL)
        })?;
        node = Node::start(node.driver.kill()?)?;
        // A kubelet that was restarted too may publish first (docs/reference/kubelet.md).
        node.publish(&volume)?;
        ensure!(whole(&node.kubelet.target(&volume), &values)?);
        node.kubelet.unpublish(&volume)?;
    }
    Ok(())
}

fn an_unpublish_wins_over_a_publish_that_still_fetches() -> Result<()> {
    let (node, vault, _) = ready()?;
    let slow = Fault::new(Action::latency(Duration::from_secs(2))).host(&vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let volume = vault.volume("demo");
    let status = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| node.publish(&volume));
        wait_for("requests reach the vault", Duration::from_secs(5), || Ok(vault.counters().get(Kind::Get) == 3))?;
        let target_path = node.kubelet.target(&volume).display().to_string();
        let request = keyvault_csi_proto::csi::NodeUnpublishVolumeRequest { volume_id: volume.id(), target_path };
        node.kubelet.send_unpublish(request)?;
        let published = publishing.join().map_err(|_| anyhow::anyhow!("the publish panicked"))?;
        published.err().context("the volume was mounted after its unpublish")
    })?;
    // Not a final error: the kubelet calls unpublish again if it still has the pod
    // (docs/reference/kubelet.md#error-codes).
    assert_eq!(status.code(), Code::Aborted, "{status}");
    ensure!(mounts_on(&node.kubelet.target(&volume))?.is_empty());
    Ok(())
}

fn a_tree_that_the_kubelet_removed_is_not_created_again() -> Result<()> {
    let (node, vault, _) = ready()?;
    let slow = Fault::new(Action::latency(Duration::from_secs(2))).host(&vault.name).kind(Kind::Get);
    harness().azure().add_fault(slow);
    let volume = vault.volume("demo");
    let pods = node.setup().kubelet_root().join("pods");
    let status = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| node.publish(&volume));
        wait_for("requests reach the vault", Duration::from_secs(5), || Ok(vault.counters().get(Kind::Get) == 3))?;
        // As a kubelet that restarted during the publish does for a pod that was deleted meanwhile
        // (docs/reference/kubelet.md#deletion).
        fs::remove_dir_all(pods.join(&volume.uid))?;
        let published = publishing.join().map_err(|_| anyhow::anyhow!("the publish panicked"))?;
        published.err().context("the volume was mounted into an orphaned tree")
    })?;
    assert_eq!(status.code(), Code::Internal, "{status}");
    ensure!(!pods.join(&volume.uid).exists(), "the tree was created again");
    Ok(())
}

fn two_publishes_of_one_volume_make_one_mount() -> Result<()> {
    let (node, vault, values) = ready()?;
    harness().azure().add_fault(Fault::new(Action::latency(Duration::from_millis(20))).host(&vault.name));
    for _ in 0..10 {
        let volume = vault.volume("demo");
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| node.publish(&volume))).collect();
            calls.into_iter().try_for_each(|call| match call.join() {
                Ok(published) => Ok(published.map(drop)?),
                Err(_) => anyhow::bail!("a publish panicked"),
            })
        })?;
        ensure!(whole(&node.kubelet.target(&volume), &values)?);
        node.kubelet.unpublish(&volume)?;
    }
    Ok(())
}

fn many_pods_at_once_all_start() -> Result<()> {
    let (node, vault, values) = ready()?;
    let volumes: Vec<Volume> = (0..64).map(|_| vault.volume("demo")).collect();
    std::thread::scope(|scope| {
        let calls: Vec<_> = volumes.iter().map(|volume| scope.spawn(|| node.publish(volume))).collect();
        calls.into_iter().try_for_each(|call| match call.join() {
            Ok(published) => Ok(published.map(drop)?),
            Err(_) => anyhow::bail!("a publish panicked"),
        })
    })?;
    for volume in &volumes {
        ensure!(whole(&node.kubelet.target(volume), &values)?);
        node.kubelet.unpublish(volume)?;
    }
    Ok(())
}
