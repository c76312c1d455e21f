//! Takeover from upstream's driver: its volumes count as published, stay unchanged or follow the
//! vault, and are unpublished.
//!
//! The tests create the layouts of docs/reference/csi-driver.md#upstream-mounts,
//! docs/reference/csi-driver.md#volume-layout and docs/reference/csi-driver.md#files-of-providers.
//! `cluster_reports` tests the takeover of status objects.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use azure_emulator::Kind;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use rustix::mount::{MountFlags, mount};

use crate::harness::{Node, Vault, harness, mounts_on};

trials! { "takeover":
    a_volume_of_the_go_driver_is_found_published,
    an_interrupted_write_of_the_go_driver_is_repaired,
    a_legacy_volume_is_not_changed,
    a_failed_publish_of_the_go_driver_is_published_again,
    two_volumes_of_one_pod_are_taken_over_and_unpublished_one_by_one,
    with_rotation_taken_over_volumes_follow_the_vault,
}

const PATIENCE: Duration = Duration::from_secs(30);
const GENERATION: &str = "..2026_05_01_10_00_00.1234567890";

/// Returns a driver, a vault whose secret `password` is newer than the mounted value, and a pod's
/// volume of it.
fn fixture() -> Result<(Node, Vault, Volume)> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    Ok((node, vault, volume))
}

/// Mounts a tmpfs as upstream does: without options, on a new directory.
fn mount_as_upstream(node: &Node, volume: &Volume) -> Result<PathBuf> {
    node.kubelet.prepare(volume)?;
    let target = node.kubelet.target(volume);
    fs::create_dir(&target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o750))?;
    mount("tmpfs", &target, "tmpfs", MountFlags::empty(), None)?;
    assert_eq!(fs::metadata(&target)?.mode() & 0o7777, 0o1777);
    Ok(target)
}

/// Writes files as upstream's atomic writer does.
fn write_as_upstream(target: &Path) -> Result<()> {
    let generation = target.join(GENERATION);
    fs::create_dir_all(generation.join("nested"))?;
    fs::set_permissions(&generation, fs::Permissions::from_mode(0o755))?;
    fs::write(generation.join("password"), "from upstream")?;
    fs::write(generation.join("nested/bar"), "below")?;
    fs::set_permissions(generation.join("password"), fs::Permissions::from_mode(0o644))?;
    symlink(GENERATION, target.join("..data"))?;
    symlink("..data/password", target.join("password"))?;
    symlink("..data/nested", target.join("nested"))?;
    Ok(())
}

/// Returns the entries of a volume with inode and time, which every write changes.
fn entries(target: &Path) -> Result<Vec<(String, u64, i64)>> {
    let mut all: Vec<_> = fs::read_dir(target)?
        .map(|entry| {
            let entry = entry?;
            let facts = fs::symlink_metadata(entry.path())?;
            Ok((entry.file_name().to_string_lossy().into_owned(), facts.ino(), facts.ctime_nsec()))
        })
        .collect::<Result<_>>()?;
    all.sort();
    Ok(all)
}

fn unpublish(node: &Node, volume: &Volume, target: &Path) -> Result<()> {
    node.kubelet.unpublish(volume)?;
    ensure!(mounts_on(target)?.is_empty() && !target.exists() && node.kubelet.has_removed(volume));
    Ok(())
}

fn a_volume_of_the_go_driver_is_found_published() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let target = mount_as_upstream(&node, &volume)?;
    write_as_upstream(&target)?;
    let before = entries(&target)?;
    node.publish(&volume)?;
    assert_eq!(entries(&target)?, before);
    assert_eq!(mounts_on(&target)?.len(), 1);
    assert_eq!(vault.counters().get(Kind::Get), 0, "a mounted volume needs no request");
    assert_eq!(fs::read_to_string(target.join("password"))?, "from upstream");
    assert_eq!(fs::read_to_string(target.join("nested/bar"))?, "below");
    unpublish(&node, &volume, &target)
}

/// Upstream stopped between two steps of a write. After that, its own writes would fail until the
/// pod is deleted.
fn an_interrupted_write_of_the_go_driver_is_repaired() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let target = mount_as_upstream(&node, &volume)?;
    write_as_upstream(&target)?;
    let newer = "..2026_05_01_10_02_00.42";
    fs::create_dir(target.join(newer))?;
    symlink(newer, target.join("..data_tmp"))?;
    node.publish(&volume)?;
    let names: Vec<String> = entries(&target)?.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [GENERATION, "..data", "nested", "password"]);
    assert_eq!(vault.counters().get(Kind::Get), 0);
    unpublish(&node, &volume, &target)
}

fn a_legacy_volume_is_not_changed() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let target = mount_as_upstream(&node, &volume)?;
    fs::write(target.join("password"), "from upstream")?;
    fs::create_dir(target.join("nested"))?;
    fs::write(target.join("nested/bar"), "below")?;
    let before = entries(&target)?;
    node.publish(&volume)?;
    assert_eq!(entries(&target)?, before);
    assert_eq!(vault.counters().get(Kind::Get), 0);
    unpublish(&node, &volume, &target)
}

/// Upstream may leave a bare directory, or an empty tmpfs.
fn a_failed_publish_of_the_go_driver_is_published_again() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let value = vault.set("password");
    let target = mount_as_upstream(&node, &volume)?;
    node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    unpublish(&node, &volume, &target)?;
    node.kubelet.prepare(&volume)?;
    fs::create_dir(&target)?;
    node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    assert_eq!(mounts_on(&target)?.len(), 1);
    unpublish(&node, &volume, &target)
}

fn two_volumes_of_one_pod_are_taken_over_and_unpublished_one_by_one() -> Result<()> {
    let (node, vault, first) = fixture()?;
    let second = Volume { name: format!("{}-2", first.name), ..first.clone() };
    for volume in [&first, &second] {
        write_as_upstream(&mount_as_upstream(&node, volume)?)?;
        node.publish(volume)?;
    }
    unpublish(&node, &first, &node.kubelet.target(&first))?;
    let left = node.kubelet.target(&second);
    assert_eq!(fs::read_to_string(left.join("password"))?, "from upstream");
    assert_eq!(vault.counters().get(Kind::Get), 0);
    unpublish(&node, &second, &left)
}

fn with_rotation_taken_over_volumes_follow_the_vault() -> Result<()> {
    let vault = harness().vault();
    let mut setup = harness().setup();
    setup.flags.extend(["--enable-secret-rotation=true", "--rotation-poll-interval=200ms"].map(str::to_owned));
    let node = Node::start(setup)?;
    node.class("demo", &vault.parameters(&["password"]))?;
    let value = vault.set("password");
    let (atomic, legacy) = (vault.volume("demo"), vault.volume("demo"));
    let targets = [mount_as_upstream(&node, &atomic)?, mount_as_upstream(&node, &legacy)?];
    write_as_upstream(&targets[0])?;
    fs::write(targets[1].join("password"), "from upstream")?;
    for (volume, target) in [&atomic, &legacy].into_iter().zip(&targets) {
        // The kubelet's next call.
        node.publish(volume)?;
        wait_for("the vault's value, and no other entry", PATIENCE, || {
            // An entry that disappears between the two calls shows a write in progress.
            let Ok(entries) = entries(target) else { return Ok(false) };
            let names: Vec<String> = entries.into_iter().map(|(name, ..)| name).collect();
            let ours = |name: &String| name.starts_with("..2") && name != GENERATION;
            Ok(fs::read_to_string(target.join("password")).is_ok_and(|read| read == value)
                && matches!(&names[..], [generation, data, file] if ours(generation) && data == "..data" && file == "password"))
        })?;
        assert_eq!(mounts_on(target)?.len(), 1);
        unpublish(&node, volume, target)?;
    }
    Ok(())
}
