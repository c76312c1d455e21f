//! Directories of the host: with `--kubelet-root`, a client of the CSI socket can have only the
//! kubelet's own volumes mounted, cleared and removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::{DEADLINE, Volume};
use keyvault_csi_proto::csi::NodeUnpublishVolumeRequest;
use libtest_mimic::Trial;
use rustix::mount::{MountFlags, mount, mount_bind};
use tonic::{Code, Status};

use crate::external_fixture;
use crate::harness::{Node, Vault, harness, kubelet_root_flag, mounts_on, set_provider_dirs, with_kubelet_root};
use crate::{kernels, takeover, unpublish};

trials! { "host_directories":
    only_volumes_below_the_root_are_touched,
    a_link_in_the_target_path_is_not_followed,
    a_tmpfs_under_another_root_is_unmounted_and_nothing_else,
    a_first_publish_outside_of_the_root_is_refused,
    the_root_applies_to_external_providers_too,
    a_volume_that_is_mounted_outside_of_the_root_stays,
    a_bare_directory_is_cleared_and_mounts_below_it_are_not_entered,
    a_component_that_is_swapped_constantly_never_leads_outside,
    the_root_itself_may_be_a_link_or_a_mount,
    an_invalid_root_prevents_the_start,
}

/// The tests of volumes' life cycles, run again with `--kubelet-root`: all targets are below the
/// root, so nothing may differ.
pub(crate) fn variants() -> Vec<Trial> {
    let tests = [kernels::TESTS, takeover::TESTS, unpublish::TESTS].into_iter().flatten();
    tests
        .map(|&(name, test)| crate::trial(&format!("host_directories::{name}"), move || with_kubelet_root(test)))
        .collect()
}

/// A driver with `--kubelet-root` and more flags.
fn rooted(flags: &[&str]) -> Result<Node> {
    let mut setup = harness().setup();
    setup.flags.push(kubelet_root_flag(&setup.kubelet_root()));
    setup.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    Node::start(setup)
}

/// The driver, a vault, and a pod's volume of the class `demo`.
fn fixture() -> Result<(Node, Vault, Volume)> {
    let (node, vault) = (rooted(&[])?, harness().vault());
    vault.set("password");
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    Ok((node, vault, volume))
}

fn unpublish_at(node: &Node, target: &Path) -> Result<(), Status> {
    let target_path = target.display().to_string();
    node.kubelet.send_unpublish(NodeUnpublishVolumeRequest { volume_id: "csi-1".to_owned(), target_path })
}

fn publish_at(node: &Node, volume: &Volume, target: &Path) -> Result<(), Status> {
    let mut request = node.kubelet.publish_request(volume);
    request.target_path = target.display().to_string();
    let sent = node.kubelet.send(request, DEADLINE);
    sent.inspect_err(|status| harness().remember(status.message()))
}

/// The target of a volume below another kubelet root; creates the directories above it.
fn under(root: &Path) -> Result<PathBuf> {
    let folder = root.join("pods/11111111-2222-4333-8444-555555555555/volumes/kubernetes.io~csi/v");
    fs::create_dir_all(&folder)?;
    Ok(folder.join("mount"))
}

fn tmpfs(target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    Ok(mount("tmpfs", target, "tmpfs", MountFlags::empty(), None)?)
}

/// A directory with content that must stay.
fn precious(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder.join("nested"))?;
    fs::write(folder.join("nested/file"), "precious")?;
    Ok(folder.to_owned())
}

fn is_whole(folder: &Path) -> bool {
    fs::read_to_string(folder.join("nested/file")).is_ok_and(|text| text == "precious")
}

fn only_volumes_below_the_root_are_touched() -> Result<()> {
    let (node, _, volume) = fixture()?;
    let (folder, root) = (node.setup().folder.clone(), node.setup().kubelet_root());
    let pod = root.join("pods").join(&volume.uid);
    let csi = pod.join("volumes/kubernetes.io~csi");
    for directory in [
        folder.join("etc/somewhere"),
        root.join("pods/x"),
        root.join("plugins/csi-secrets-store"),
        pod.join("volumes/kubernetes.io~empty-dir/v/mount"),
        pod.join("volumes/kubernetes.io~secret/v/mount"),
        csi.join("v"),
        csi.join("v/mount/below"),
        csi.join("v/other"),
        pod.join("volume-subpaths/kubernetes.io~csi/v/mount"),
        // A directory that a pod can write, laid out as a kubelet root.
        under(&pod.join("volumes/kubernetes.io~empty-dir/data"))?,
        // The root as a prefix of the text only.
        PathBuf::from(format!("{}-2/pods/u/volumes/kubernetes.io~csi/v/mount", root.display())),
        // Below another root, and not a mount.
        under(&folder.join("other-root"))?,
    ] {
        precious(&directory)?;
        unpublish_at(&node, &directory)?;
        ensure!(is_whole(&directory), "{} was touched", directory.display());
    }
    for file in [folder.join("file"), csi.join("v/file"), root.join("pods/file")] {
        fs::write(&file, "precious")?;
        unpublish_at(&node, &file)?;
        assert_eq!(fs::read_to_string(&file)?, "precious");
    }
    // A tmpfs elsewhere, and a mount that is not a tmpfs.
    for target in [folder.join("shm"), csi.join("w"), csi.join("w2/mount/below")] {
        tmpfs(&target)?;
        precious(&target)?;
        unpublish_at(&node, &target)?;
        ensure!(is_whole(&target) && mounts_on(&target)?.len() == 1, "{} was touched", target.display());
    }
    let (bound, at) = (precious(&folder.join("bound"))?, under(&folder.join("third-root"))?);
    fs::create_dir(&at)?;
    mount_bind(&bound, &at)?;
    unpublish_at(&node, &at)?;
    ensure!(
        is_whole(&at) && mounts_on(&at)?.len() == 1,
        "a mount that is not a tmpfs was unmounted under another root"
    );
    ensure!(node.log().contains("not below --kubelet-root"), "{}", node.log());
    // As without the flag, an absent target is a success.
    unpublish_at(&node, &root.join("pods/gone/volumes/kubernetes.io~csi/v/mount"))?;
    unpublish_at(&node, Path::new("/nowhere/at/all"))?;
    Ok(())
}

fn a_link_in_the_target_path_is_not_followed() -> Result<()> {
    let (node, _, volume) = fixture()?;
    let (folder, root) = (node.setup().folder.clone(), node.setup().kubelet_root());
    let parts = ["pods", volume.uid.as_str(), "volumes", "kubernetes.io~csi", "v", "mount"];
    for at in 1..parts.len() {
        // The component `at` is a link to the directory with the components after it.
        let there = folder.join(format!("there-{at}"));
        let target = precious(&parts[at + 1..].iter().fold(there.clone(), |path, part| path.join(part)))?;
        let link = parts[1..=at].iter().fold(root.join("pods"), |path, part| path.join(part));
        fs::create_dir_all(link.parent().context("a parent")?)?;
        symlink(&there, &link)?;
        let path = parts.iter().fold(root.clone(), |path, part| path.join(part));
        ensure!(is_whole(&path), "the link does not lead there");
        unpublish_at(&node, &path)?;
        ensure!(is_whole(&target) && link.is_symlink(), "component {at} was followed, or removed");
        let status = publish_at(&node, &volume, &path).err().context("published through a link")?;
        ensure!(matches!(status.code(), Code::InvalidArgument | Code::Internal), "{status}");
        ensure!(is_whole(&target) && mounts_on(&target)?.is_empty() && mounts_on(&path)?.is_empty());
        // A tmpfs behind the link is not unmounted either.
        tmpfs(&target)?;
        precious(&target)?;
        unpublish_at(&node, &path)?;
        ensure!(is_whole(&target) && mounts_on(&target)?.len() == 1, "component {at}: the tmpfs was unmounted");
        fs::remove_file(&link)?;
    }
    Ok(())
}

fn a_tmpfs_under_another_root_is_unmounted_and_nothing_else() -> Result<()> {
    let (node, ..) = fixture()?;
    let folder = node.setup().folder.clone();
    let target = under(&folder.join("var/lib/other"))?;
    precious(&target)?;
    // Stacked mounts, one of which is also mounted elsewhere: its content stays.
    let elsewhere = folder.join("elsewhere");
    tmpfs(&elsewhere)?;
    precious(&elsewhere)?;
    mount_bind(&elsewhere, &target)?;
    tmpfs(&target)?;
    tmpfs(&target)?;
    unpublish_at(&node, &target)?;
    ensure!(mounts_on(&target)?.is_empty(), "a mount is left");
    ensure!(is_whole(&elsewhere), "the content of a tmpfs was cleared");
    ensure!(is_whole(&target), "the directory below the mounts was touched");
    ensure!(node.log().contains("its tmpfs was unmounted"), "{}", node.log());
    // Not through a link below that root.
    let hidden = under(&folder.join("hidden"))?;
    tmpfs(&hidden)?;
    let linked = folder.join("linked/pods/u/volumes/kubernetes.io~csi");
    fs::create_dir_all(&linked)?;
    symlink(hidden.parent().context("a parent")?, linked.join("v"))?;
    unpublish_at(&node, &linked.join("v/mount"))?;
    assert_eq!(mounts_on(&hidden)?.len(), 1);
    Ok(())
}

fn a_first_publish_outside_of_the_root_is_refused() -> Result<()> {
    let (node, vault, mut volume) = fixture()?;
    let (folder, root) = (node.setup().folder.clone(), node.setup().kubelet_root());
    for target in [
        folder.join("target"),
        under(&folder.join("other"))?,
        root.join("pods/u/volumes/kubernetes.io~csi/mount"),
        root.join("pods/u/volumes/kubernetes.io~empty-dir/v/mount"),
        root.join("pods/u/volumes/kubernetes.io~csi/v/mounted"),
    ] {
        fs::create_dir_all(target.parent().context("a parent")?)?;
        if let Some(uid) =
            target.to_str().and_then(|path| path.split("/pods/").nth(1)).and_then(|path| path.split('/').next())
        {
            volume.uid = uid.to_owned();
        }
        let status = publish_at(&node, &volume, &target).err().context("it was published")?;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        for word in ["--kubelet-root", "linux.kubeletRootDir", root.to_str().context("UTF-8")?, "(InvalidRequest)"] {
            ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
        }
        ensure!(!target.exists(), "{} was made", target.display());
        // Nor is an existing directory a volume.
        precious(&target)?;
        publish_at(&node, &volume, &target).err().context("it was published")?;
        ensure!(is_whole(&target) && mounts_on(&target)?.is_empty());
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "the driver sent requests");
    node.publish(&vault.volume("demo"))?;
    Ok(())
}

fn the_root_applies_to_external_providers_too() -> Result<()> {
    let mut setup = harness().setup();
    set_provider_dirs(&mut setup)?;
    setup.flags.push(kubelet_root_flag(&setup.kubelet_root()));
    let node = Node::start(setup)?;
    let provider = external_fixture::provider(&external_fixture::options(node.setup(), 1, 8080)?)?;
    external_fixture::set_secret(&provider, "foo", "v1")?;
    external_fixture::class(&node, "demo", &["objectName: foo, objectVersion: v1"], "")?;
    let volume = external_fixture::volume("demo");
    let status = publish_at(&node, &volume, &node.setup().folder.join("target")).err().context("it was published")?;
    ensure!(status.message().contains("--kubelet-root"), "{status}");
    ensure!(provider.requests()?.is_empty(), "the provider had a request");
    node.publish(&volume)?;
    Ok(())
}

/// As when the chart's value changes while pods run.
fn a_volume_that_is_mounted_outside_of_the_root_stays() -> Result<()> {
    let vault = harness().vault();
    let value = vault.set("password");
    let mut setup = harness().setup();
    setup.flags.extend(external_fixture::ROTATING.map(str::to_owned));
    let node = Node::start(setup)?;
    node.class("demo", &vault.parameters(&["password"]))?;
    let volume = vault.volume("demo");
    let other = node.setup().folder.join("before");
    let target = other.join("pods").join(&volume.uid).join("volumes/kubernetes.io~csi/v/mount");
    fs::create_dir_all(target.parent().context("a parent")?)?;
    publish_at(&node, &volume, &target)?;
    let mut setup = node.driver.kill()?;
    setup.flags.push(kubelet_root_flag(&setup.kubelet_root()));
    let node = Node::start(setup)?;
    let before = vault.counters().total();
    for _ in 0..3 {
        publish_at(&node, &volume, &target)?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    let log = node.log();
    ensure!(log.contains("not below --kubelet-root") && log.contains("tokens are dropped"), "{log}");
    // Even a request that is invalid otherwise succeeds for this volume.
    let mut faulty = node.kubelet.publish_request(&volume);
    faulty.target_path = target.display().to_string();
    faulty.volume_context.clear();
    node.kubelet.send(faulty, DEADLINE)?;
    // A second volume, below the root, is refreshed:
    // so cycles run, and this volume stays as it was.
    let second = vault.volume("demo");
    let refreshed = node.publish(&second)?;
    let newer = vault.set("password");
    wait_for("the second volume is refreshed", Duration::from_secs(60), || {
        Ok(fs::read_to_string(refreshed.join("password"))? == newer)
    })?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    ensure!(vault.counters().total() > before);
    // The pod can still be deleted.
    unpublish_at(&node, &target)?;
    ensure!(mounts_on(&target)?.is_empty() && fs::read_dir(&target)?.next().is_none());
    Ok(())
}

/// After a reboot the mount is gone, and another program may have written into the bare directory.
fn a_bare_directory_is_cleared_and_mounts_below_it_are_not_entered() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    node.kubelet.prepare(&volume)?;
    let target = node.kubelet.target(&volume);
    precious(&target)?;
    node.kubelet.unpublish(&volume)?;
    ensure!(!target.exists() && node.kubelet.has_removed(&volume));
    // Mounts below: a tmpfs, a directory of the same file system, and a file.
    let beside = precious(&node.setup().folder.join("beside"))?;
    node.kubelet.prepare(&volume)?;
    precious(&target)?;
    for below in ["tmpfs/a", "bound/b/c"] {
        fs::create_dir_all(target.join(below))?;
    }
    tmpfs(&target.join("tmpfs/a"))?;
    precious(&target.join("tmpfs/a"))?;
    mount_bind(&beside, target.join("bound/b/c"))?;
    fs::write(target.join("file"), "")?;
    mount_bind(beside.join("nested/file"), target.join("file"))?;
    let status = unpublish_at(&node, &target).err().context("the unpublish succeeded")?;
    assert_eq!(status.code(), Code::Internal, "{status}");
    ensure!(is_whole(&beside) && is_whole(&target.join("tmpfs/a")) && is_whole(&target.join("bound/b/c")));
    ensure!(!target.join("nested").exists(), "what is not mounted is cleared");
    for below in ["tmpfs/a", "bound/b/c", "file"] {
        assert_eq!(mounts_on(&target.join(below))?.len(), 1, "{below}");
        rustix::mount::unmount(target.join(below), rustix::mount::UnmountFlags::empty())?;
    }
    node.kubelet.unpublish(&volume)?;
    ensure!(!target.exists() && is_whole(&beside));
    node.publish(&vault.volume("demo"))?;
    Ok(())
}

/// A process with write access above the target swaps one component for a link as fast as possible.
fn a_component_that_is_swapped_constantly_never_leads_outside() -> Result<()> {
    let (node, _, volume) = fixture()?;
    let csi = node.setup().kubelet_root().join("pods").join(&volume.uid).join("volumes/kubernetes.io~csi");
    let (name, real, link) = (csi.join(&volume.name), csi.join("real"), csi.join("link"));
    let there = node.setup().folder.join("there");
    precious(&there.join("mount"))?;
    fs::create_dir_all(&real)?;
    symlink(&there, &link)?;
    fs::create_dir(&name)?;
    let stop = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| -> Result<u64> {
        let swapping = scope.spawn(|| {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                // An atomic exchange: the path always exists.
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                if rustix::fs::renameat_with(rustix::fs::CWD, &name, rustix::fs::CWD, &link, flags).is_ok() {
                    swaps += 1;
                }
            }
            swaps
        });
        let target = node.kubelet.target(&volume);
        let (began, mut published, mut refused) = (Instant::now(), 0, 0);
        let outcome = (|| {
            while began.elapsed() < Duration::from_secs(60) && (published < 5 || refused < 5) {
                match publish_at(&node, &volume, &target) {
                    Ok(()) => published += 1,
                    Err(_) => refused += 1,
                }
                unpublish_at(&node, &target)?;
                ensure!(is_whole(&there.join("mount")), "the content behind the link was touched");
                ensure!(mounts_on(&there.join("mount"))?.is_empty(), "something was mounted behind the link");
            }
            ensure!(published >= 5 && refused >= 5, "{published} published, {refused} refused");
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let swaps = swapping.join().ok().context("the swapping ended")?;
        outcome.map(|()| swaps)
    })?;
    ensure!(swaps > 0, "nothing was swapped");
    Ok(())
}

/// On some hosts the kubelet's root is a link to another disk, or a mount.
fn the_root_itself_may_be_a_link_or_a_mount() -> Result<()> {
    for is_link in [true, false] {
        let vault = harness().vault();
        vault.set("password");
        let mut setup = harness().setup();
        let (root, disk) = (setup.kubelet_root(), setup.folder.join("disk"));
        fs::create_dir_all(&disk)?;
        if is_link {
            symlink(&disk, &root)?;
        } else {
            fs::create_dir_all(&root)?;
            mount_bind(&disk, &root)?;
        }
        // Trailing slashes are allowed.
        setup.flags.push(format!("--kubelet-root={}//", root.display()));
        let node = Node::start(setup)?;
        node.class("demo", &vault.parameters(&["password"]))?;
        let volume = vault.volume("demo");
        let target = node.publish(&volume)?;
        ensure!(target.join("password").exists());
        node.publish(&volume)?;
        node.kubelet.unpublish(&volume)?;
        ensure!(node.kubelet.has_removed(&volume));
    }
    Ok(())
}

fn an_invalid_root_prevents_the_start() -> Result<()> {
    for root in ["", "/", "var/lib/kubelet", "/var/../etc"] {
        let setup = harness().setup();
        let output = setup.command().arg(format!("--kubelet-root={root}")).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && text.contains("--kubelet-root") && text.contains("absolute path"),
            "{root}: {text}"
        );
    }
    Ok(())
}
