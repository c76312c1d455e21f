//! Kernels without the mount API of 5.2 or without `noswap`, and writes that fail.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyvault_csi_e2e::driver::{Kernel, wait_for};

use crate::harness::{Node, harness, mounts_on};

trials! { "kernels":
    without_the_new_mount_api_a_volume_is_mounted_and_filled,
    without_the_new_mount_api_a_failed_publish_leaves_nothing,
    with_the_new_mount_api_no_mount_is_seen_without_files,
    the_log_warns_once_of_volumes_that_may_be_swapped,
}

fn old_kernel() -> Result<Node> {
    let mut setup = harness().setup();
    setup.kernel = Kernel::WithoutMountApi;
    Node::start(setup)
}

fn without_the_new_mount_api_a_volume_is_mounted_and_filled() -> Result<()> {
    let (node, vault) = (old_kernel()?, harness().vault());
    let value = vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let target = node.publish(&volume)?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    let mounts = mounts_on(&target)?;
    for option in ["nosuid", "nodev", "noexec", "size=16416k", "mode=755"] {
        ensure!(mounts.len() == 1 && mounts[0].contains(option), "{option} is missing: {mounts:?}");
    }
    node.publish(&volume)?;
    node.kubelet.unpublish(&volume)?;
    ensure!(node.kubelet.has_removed(&volume) && mounts_on(&target)?.is_empty());
    Ok(())
}

/// The write fails after the mount, since the process's file size limit is below the secret's size.
fn without_the_new_mount_api_a_failed_publish_leaves_nothing() -> Result<()> {
    let mut setup = harness().setup();
    setup.kernel = Kernel::WithoutMountApi;
    setup.largest_file = Some(8);
    let (node, vault) = (Node::start(setup)?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let status = node.refused(&vault.volume("demo"))?;
    ensure!(status.message().contains("cannot write the files"), "{status}");
    Ok(())
}

/// Looks at the target at the moment at which the mount appears: with mount(2) some would be empty.
fn with_the_new_mount_api_no_mount_is_seen_without_files() -> Result<()> {
    let (node, vault) = (harness().node()?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let mut looks = 0;
    for _ in 0..20 {
        let volume = vault.volume("demo");
        node.kubelet.prepare(&volume)?;
        let target = node.kubelet.target(&volume);
        let mounted = || rustix::fs::statfs(&target).is_ok_and(|found| found.f_type == 0x0102_1994);
        std::thread::scope(|scope| {
            let publishing = scope.spawn(|| node.publish(&volume));
            while !mounted() && !publishing.is_finished() {}
            looks += u32::from(!publishing.is_finished());
            let seen = target.join("password").exists();
            publishing.join().map_err(|_| anyhow::anyhow!("the publish panicked"))??;
            ensure!(seen, "a mount without files was seen");
            Ok(())
        })?;
    }
    ensure!(looks > 0, "every publish finished before the first look");
    Ok(())
}

fn the_log_warns_once_of_volumes_that_may_be_swapped() -> Result<()> {
    const WARNING: &str = "volumes may be written to the node's swap";
    for kernel in [Kernel::Present, Kernel::WithoutNoswap] {
        let mut setup = harness().setup();
        setup.kernel = kernel;
        let (node, vault) = (Node::start(setup)?, harness().vault());
        let value = vault.set("password");
        node.class("demo", &vault.parameters(&["password"]))?;
        let mut kept = false;
        for _ in 0..3 {
            let target = node.publish(&vault.volume("demo"))?;
            assert_eq!(fs::read_to_string(target.join("password"))?, value);
            kept = mounts_on(&target)?[0].contains("noswap");
        }
        ensure!(kernel == Kernel::Present || !kept, "the kernel has noswap");
        let expected = usize::from(!kept);
        wait_for("the warning", Duration::from_secs(30), || Ok(node.log().matches(WARNING).count() >= expected))?;
        assert_eq!(node.log().matches(WARNING).count(), expected, "{kernel:?}");
    }
    Ok(())
}
