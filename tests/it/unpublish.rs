//! Unpublish is idempotent, and works for every kind of entry at the target
//! (docs/reference/csi-driver.md#unpublish-checks).

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use keyvault_csi_proto::csi::NodeUnpublishVolumeRequest;
use rustix::mount::MountFlags;
use tonic::Code;

use crate::harness::{harness, mounts_on};

trials! { "unpublish":
    unpublish_removes_files_mount_and_directory_and_may_be_repeated,
    a_missing_target_is_a_success,
    missing_fields_are_named,
    unpublish_removes_stacked_mounts,
    unpublish_removes_a_bare_directory_with_its_content,
    unpublish_removes_a_foreign_mount_but_not_its_content,
    unpublish_removes_a_file_at_the_target,
    an_open_file_does_not_block_unpublish,
    a_path_with_blanks_and_tabs_works,
}

fn unpublish_removes_files_mount_and_directory_and_may_be_repeated() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    for _ in 0..3 {
        node.kubelet.unpublish(&volume)?;
        ensure!(mounts_on(&target)?.is_empty() && !target.exists() && node.kubelet.has_removed(&volume));
    }
    ensure!(!node.log().contains("failed to clean and unmount target path"), "{}", node.log());
    Ok(())
}

fn a_missing_target_is_a_success() -> Result<()> {
    let node = harness().node()?;
    for target_path in ["/nowhere/at/all/mount", "/tmp/csi/mount"] {
        node.kubelet.send_unpublish(NodeUnpublishVolumeRequest {
            volume_id: "csi-1".to_owned(),
            target_path: target_path.to_owned(),
        })?;
    }
    Ok(())
}

fn missing_fields_are_named() -> Result<()> {
    let node = harness().node()?;
    for (id, path, named) in
        [("", "/a/b", "volume id"), ("1", "", "target path"), ("", "", "volume id"), ("1", "a/../b", "absolute")]
    {
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: path.to_owned() };
        let status = node.kubelet.send_unpublish(request).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        ensure!(status.message().contains(named), "{status}");
    }
    Ok(())
}

fn unpublish_removes_stacked_mounts() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    for _ in 0..3 {
        mount_tmpfs(&target)?;
    }
    node.kubelet.unpublish(&volume)?;
    ensure!(mounts_on(&target)?.is_empty() && !target.exists());
    Ok(())
}

fn unpublish_removes_a_bare_directory_with_its_content() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let volume = vault.volume("demo");
    node.kubelet.prepare(&volume)?;
    let target = node.kubelet.target(&volume);
    fs::create_dir_all(target.join("..2026_01_01_00_00_00.1/nested"))?;
    fs::write(target.join("..2026_01_01_00_00_00.1/nested/file"), "x")?;
    std::os::unix::fs::symlink("/etc/hostname", target.join("link"))?;
    node.kubelet.unpublish(&volume)?;
    ensure!(node.kubelet.has_removed(&volume) && Path::new("/etc/hostname").exists());
    Ok(())
}

fn unpublish_removes_a_foreign_mount_but_not_its_content() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let volume = vault.volume("demo");
    node.kubelet.prepare(&volume)?;
    let (target, precious) = (node.kubelet.target(&volume), node.setup().folder.join("precious"));
    fs::create_dir(&target)?;
    fs::create_dir(&precious)?;
    fs::write(precious.join("file"), "x")?;
    rustix::mount::mount_bind(&precious, &target)?;
    let refused = node.publish(&volume).unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    node.kubelet.unpublish(&volume)?;
    ensure!(!target.exists() && precious.join("file").exists());
    Ok(())
}

fn unpublish_removes_a_file_at_the_target() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    node.kubelet.prepare(&volume)?;
    let target = node.kubelet.target(&volume);
    fs::write(&target, "x")?;
    let refused = node.publish(&volume).unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    ensure!(refused.message().contains("not a directory"), "{refused}");
    node.kubelet.unpublish(&volume)?;
    ensure!(node.kubelet.has_removed(&volume));
    Ok(())
}

fn an_open_file_does_not_block_unpublish() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    let reader = fs::File::open(target.join("password"))?;
    node.kubelet.unpublish(&volume)?;
    ensure!(mounts_on(&target)?.is_empty() && !target.exists());
    drop(reader);
    Ok(())
}

fn a_path_with_blanks_and_tabs_works() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    let password = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let mut volume = vault.volume("demo");
    volume.name = "a volume\twith\\odd name".to_owned();
    let target = node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, password);
    let requests = vault.counters().total();
    node.publish(&volume)?;
    assert_eq!(vault.counters().total(), requests, "the mounted volume was fetched again");
    node.kubelet.unpublish(&volume)?;
    ensure!(node.kubelet.has_removed(&volume));
    Ok(())
}

fn mount_tmpfs(target: &Path) -> Result<()> {
    Ok(rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::empty(), None)?)
}
