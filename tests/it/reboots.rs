//! After a reboot of the node the mounts are gone. Files below the mount points are on the disk,
//! and the driver does not treat them as a volume.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use rustix::mount::{UnmountFlags, unmount};

use crate::harness::{Node, Vault, harness, mounts_on};

trials! { "reboots":
    a_returning_pod_gets_its_volume_over_the_leftovers,
    a_pod_that_is_gone_leaves_nothing,
    a_refresh_writes_nothing_into_the_leftovers,
}

const PATIENCE: Duration = Duration::from_secs(30);
/// A generation's name.
const GENERATION: &str = "..2026_01_01_00_00_00.1234567890";
const LEFTOVER: &str = "from before the reboot";

/// A node after its reboot: the driver starts again, the mount of a volume is gone, and its
/// directory has the layout of a whole volume, as after a copy or when another driver wrote to the
/// disk.
fn rebooted(flags: &[&str]) -> Result<(Node, Vault, Volume)> {
    let mut setup = harness().setup();
    setup.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let (node, vault) = (Node::start(setup)?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let setup = node.driver.kill()?;
    unmount(&target, UnmountFlags::DETACH)?;
    fs::create_dir_all(target.join(GENERATION).join("nested"))?;
    fs::write(target.join(GENERATION).join("password"), LEFTOVER)?;
    fs::write(target.join(GENERATION).join("nested/file"), LEFTOVER)?;
    symlink(GENERATION, target.join("..data"))?;
    symlink("..data/password", target.join("password"))?;
    // Links out of the volume, which the driver must not follow.
    symlink(host_directory(&setup.folder)?, target.join("precious"))?;
    symlink("/", target.join("root"))?;
    Ok((Node::start(setup)?, vault, volume))
}

/// Creates a directory of the host beside the kubelet's.
fn host_directory(folder: &Path) -> Result<std::path::PathBuf> {
    let precious = folder.join("precious");
    fs::create_dir_all(&precious)?;
    fs::write(precious.join("file"), "x")?;
    Ok(precious)
}

fn a_returning_pod_gets_its_volume_over_the_leftovers() -> Result<()> {
    let (node, vault, volume) = rebooted(&[])?;
    let value = vault.set("password");
    for _ in 0..2 {
        let target = node.publish(&volume)?;
        ensure!(mounts_on(&target)?.len() == 1, "the leftovers count as a volume: {:?}", mounts_on(&target)?);
        ensure!(fs::read_to_string(target.join("password"))? == value && !target.join("precious").exists());
    }
    node.kubelet.unpublish(&volume)?;
    ensure!(node.kubelet.has_removed(&volume), "the kubelet cannot remove the pod's directory");
    ensure!(node.setup().folder.join("precious/file").exists(), "a link was followed");
    Ok(())
}

fn a_pod_that_is_gone_leaves_nothing() -> Result<()> {
    let (node, _, volume) = rebooted(&[])?;
    for _ in 0..2 {
        node.kubelet.unpublish(&volume)?;
        ensure!(node.kubelet.has_removed(&volume), "the kubelet cannot remove the pod's directory");
    }
    ensure!(node.setup().folder.join("precious/file").exists(), "a link was followed");
    Ok(())
}

/// The kubelet calls again for a pod of before the reboot. This registers the volume for refreshes,
/// and none of them may write to the disk.
fn a_refresh_writes_nothing_into_the_leftovers() -> Result<()> {
    let (node, vault, volume) = rebooted(&["--enable-secret-rotation", "--rotation-poll-interval=200ms"])?;
    let target = node.publish(&volume)?;
    ensure!(mounts_on(&target)?.len() == 1);
    // The mount disappears while the driver runs.
    unmount(&target, UnmountFlags::DETACH)?;
    let value = vault.set("password");
    wait_for("the driver notices", PATIENCE, || Ok(node.log().contains("a volume is gone; nothing is written")))?;
    ensure!(fs::read_to_string(target.join("password"))? == LEFTOVER, "a secret is on the disk");
    // The kubelet's next call mounts it again.
    node.publish(&volume)?;
    ensure!(fs::read_to_string(target.join("password"))? == value);
    Ok(())
}
