//! A node on which upstream's driver ran: its mounts are found published, stay as they are or follow the vault, and are unpublished.
//!
//! The layouts are laid out by hand as docs/reference/csi-driver.md#upstream-mounts,
//! docs/reference/csi-driver.md#volume-layout and docs/reference/csi-driver.md#files-of-providers
//! describe them; status objects that it wrote are `cluster_reports`'.

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
    one_whose_write_was_cut_off_is_mended,
    one_whose_provider_wrote_the_files_itself_is_left_alone,
    what_a_failed_publish_of_the_go_driver_left_is_published,
    two_volumes_of_one_pod_are_taken_over_and_go_one_by_one,
    with_rotation_they_follow_the_vault,
}

const PATIENCE: Duration = Duration::from_secs(30);
const GENERATION: &str = "..2026_05_01_10_00_00.1234567890";

/// A driver, a vault whose secret `password` has a newer value than the one that was mounted, and a pod's volume of it.
fn fixture() -> Result<(Node, Vault, Volume)> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    Ok((node, vault, volume))
}

/// What upstream mounts: a tmpfs without any option, on a directory that it made.
fn mounted(node: &Node, volume: &Volume) -> Result<PathBuf> {
    node.kubelet.prepare(volume)?;
    let target = node.kubelet.target(volume);
    fs::create_dir(&target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o750))?;
    mount("tmpfs", &target, "tmpfs", MountFlags::empty(), None)?;
    assert_eq!(fs::metadata(&target)?.mode() & 0o7777, 0o1777);
    Ok(target)
}

/// Files as upstream's atomic writer leaves them.
fn written(target: &Path) -> Result<()> {
    let generation = target.join(GENERATION);
    fs::create_dir_all(generation.join("nested"))?;
    fs::set_permissions(&generation, fs::Permissions::from_mode(0o755))?;
    fs::write(generation.join("password"), "as it was")?;
    fs::write(generation.join("nested/bar"), "below")?;
    fs::set_permissions(generation.join("password"), fs::Permissions::from_mode(0o644))?;
    symlink(GENERATION, target.join("..data"))?;
    symlink("..data/password", target.join("password"))?;
    symlink("..data/nested", target.join("nested"))?;
    Ok(())
}

/// Everything in a volume, with what would show a write.
fn seen(target: &Path) -> Result<Vec<(String, u64, i64)>> {
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

fn gone(node: &Node, volume: &Volume, target: &Path) -> Result<()> {
    node.kubelet.unpublish(volume)?;
    ensure!(mounts_on(target)?.is_empty() && !target.exists() && node.kubelet.has_removed(volume));
    Ok(())
}

fn a_volume_of_the_go_driver_is_found_published() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let target = mounted(&node, &volume)?;
    written(&target)?;
    let before = seen(&target)?;
    node.publish(&volume)?;
    assert_eq!(seen(&target)?, before);
    assert_eq!(mounts_on(&target)?.len(), 1);
    assert_eq!(vault.counters().get(Kind::Get), 0, "a mounted volume asks nobody");
    assert_eq!(fs::read_to_string(target.join("password"))?, "as it was");
    assert_eq!(fs::read_to_string(target.join("nested/bar"))?, "below");
    gone(&node, &volume, &target)
}

/// Upstream stopped between two steps: from then on each of its own writes fails until the pod is deleted.
fn one_whose_write_was_cut_off_is_mended() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let target = mounted(&node, &volume)?;
    written(&target)?;
    let newer = "..2026_05_01_10_02_00.42";
    fs::create_dir(target.join(newer))?;
    symlink(newer, target.join("..data_tmp"))?;
    node.publish(&volume)?;
    let names: Vec<String> = seen(&target)?.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [GENERATION, "..data", "nested", "password"]);
    assert_eq!(vault.counters().get(Kind::Get), 0);
    gone(&node, &volume, &target)
}

fn one_whose_provider_wrote_the_files_itself_is_left_alone() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let target = mounted(&node, &volume)?;
    fs::write(target.join("password"), "as it was")?;
    fs::create_dir(target.join("nested"))?;
    fs::write(target.join("nested/bar"), "below")?;
    let before = seen(&target)?;
    node.publish(&volume)?;
    assert_eq!(seen(&target)?, before);
    assert_eq!(vault.counters().get(Kind::Get), 0);
    gone(&node, &volume, &target)
}

/// Upstream may leave the bare directory, or its tmpfs with nothing in it.
fn what_a_failed_publish_of_the_go_driver_left_is_published() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    let value = vault.set("password");
    let target = mounted(&node, &volume)?;
    node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    gone(&node, &volume, &target)?;
    node.kubelet.prepare(&volume)?;
    fs::create_dir(&target)?;
    node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    assert_eq!(mounts_on(&target)?.len(), 1);
    gone(&node, &volume, &target)
}

fn two_volumes_of_one_pod_are_taken_over_and_go_one_by_one() -> Result<()> {
    let (node, vault, first) = fixture()?;
    let second = Volume { name: format!("{}-2", first.name), ..first.clone() };
    for volume in [&first, &second] {
        written(&mounted(&node, volume)?)?;
        node.publish(volume)?;
    }
    gone(&node, &first, &node.kubelet.target(&first))?;
    let left = node.kubelet.target(&second);
    assert_eq!(fs::read_to_string(left.join("password"))?, "as it was");
    assert_eq!(vault.counters().get(Kind::Get), 0);
    gone(&node, &second, &left)
}

fn with_rotation_they_follow_the_vault() -> Result<()> {
    let vault = harness().vault();
    let mut setup = harness().setup();
    setup.flags.extend(["--enable-secret-rotation=true", "--rotation-poll-interval=200ms"].map(str::to_owned));
    let node = Node::start(setup)?;
    node.class("demo", &vault.parameters(&["password"]))?;
    let value = vault.set("password");
    let (atomic, legacy) = (vault.volume("demo"), vault.volume("demo"));
    let targets = [mounted(&node, &atomic)?, mounted(&node, &legacy)?];
    written(&targets[0])?;
    fs::write(targets[1].join("password"), "as it was")?;
    for (volume, target) in [&atomic, &legacy].into_iter().zip(&targets) {
        // The kubelet's next call.
        node.publish(volume)?;
        wait_for("the volume has the vault's value and nothing else", PATIENCE, || {
            // What goes while it is looked at shows that the write goes on.
            let Ok(entries) = seen(target) else { return Ok(false) };
            let names: Vec<String> = entries.into_iter().map(|(name, ..)| name).collect();
            let ours = |name: &String| name.starts_with("..2") && name != GENERATION;
            Ok(fs::read_to_string(target.join("password")).is_ok_and(|read| read == value)
                && matches!(&names[..], [generation, data, file] if ours(generation) && data == "..data" && file == "password"))
        })?;
        assert_eq!(mounts_on(target)?.len(), 1);
        gone(&node, volume, target)?;
    }
    Ok(())
}
