//! Directories of the host: with `--kubelet-root`, whoever reaches the CSI socket gets nothing mounted, cleared or removed but the
//! kubelet's own volumes.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::{Setup, wait_for};
use keyvault_csi_e2e::kubelet::{DEADLINE, Volume};
use keyvault_csi_proto::csi::NodeUnpublishVolumeRequest;
use libtest_mimic::Trial;
use rustix::mount::{MountFlags, mount, mount_bind};
use tonic::{Code, Status};

use crate::external_fixture::{self, look_there};
use crate::harness::{Node, Vault, harness, mounts_on};
use crate::{kernels, takeover, unpublish};

trials! { "host_directories":
    what_is_not_a_volume_below_the_root_is_not_touched,
    a_link_on_the_way_leads_nowhere,
    a_tmpfs_under_another_root_is_taken_off_and_no_more,
    a_first_publish_outside_of_the_root_is_refused,
    other_providers_are_held_to_the_root_too,
    a_volume_that_is_mounted_outside_of_the_root_stays,
    a_bare_directory_is_cleared_and_what_is_mounted_below_is_not_entered,
    a_component_that_is_swapped_all_the_time_never_leads_out,
    the_root_itself_may_be_a_link_or_a_mount,
    a_root_that_is_none_keeps_the_driver_from_starting,
}

thread_local! {
    /// Whether drivers of this test are told the root of their kubelet.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// The tests of volumes' lives that are made once more with `--kubelet-root`: all of it is below the root, so nothing may differ.
pub(crate) fn variants() -> Vec<Trial> {
    let with_root = |test: fn() -> Result<()>| {
        TOLD.set(true);
        let outcome = std::panic::catch_unwind(test);
        // The thread goes on to other tests.
        TOLD.set(false);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    let tests = [kernels::TESTS, takeover::TESTS, unpublish::TESTS].into_iter().flatten();
    tests.map(|&(name, test)| crate::trial(&format!("host_directories::{name}"), move || with_root(test))).collect()
}

/// Tells a driver the root of its kubelet, where a test is made once more so.
pub(crate) fn tell_root(setup: &mut Setup) {
    if TOLD.get() {
        setup.flags.push(root_flag(&setup.kubelet_root()));
    }
}

fn root_flag(root: &Path) -> String {
    format!("--kubelet-root={}", root.display())
}

/// A driver that knows its kubelet's root, with more flags.
fn told(flags: &[&str]) -> Result<Node> {
    let mut setup = harness().setup();
    setup.flags.push(root_flag(&setup.kubelet_root()));
    setup.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    Node::start(setup)
}

/// The same, a vault, and a pod's volume of the class `demo`.
fn fixture() -> Result<(Node, Vault, Volume)> {
    let (node, vault) = (told(&[])?, harness().vault());
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

/// Where a kubelet of another root has a volume; the directories above are made.
fn under(root: &Path) -> Result<PathBuf> {
    let folder = root.join("pods/11111111-2222-4333-8444-555555555555/volumes/kubernetes.io~csi/v");
    fs::create_dir_all(&folder)?;
    Ok(folder.join("mount"))
}

fn tmpfs(target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    Ok(mount("tmpfs", target, "tmpfs", MountFlags::empty(), None)?)
}

/// A directory with something in it that must stay.
fn precious(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder.join("nested"))?;
    fs::write(folder.join("nested/file"), "precious")?;
    Ok(folder.to_owned())
}

fn is_whole(folder: &Path) -> bool {
    fs::read_to_string(folder.join("nested/file")).is_ok_and(|text| text == "precious")
}

fn what_is_not_a_volume_below_the_root_is_not_touched() -> Result<()> {
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
        // What a pod may write, laid out as a kubelet's root.
        under(&pod.join("volumes/kubernetes.io~empty-dir/data"))?,
        // The root as text, and not as a directory.
        PathBuf::from(format!("{}-2/pods/u/volumes/kubernetes.io~csi/v/mount", root.display())),
        // Another root, and no mount there.
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
    // Any tmpfs, and any other mount.
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
    ensure!(is_whole(&at) && mounts_on(&at)?.len() == 1, "a mount that is no tmpfs was taken off under another root");
    ensure!(node.log().contains("not below --kubelet-root"), "{}", node.log());
    // What is nowhere is a success as ever.
    unpublish_at(&node, &root.join("pods/gone/volumes/kubernetes.io~csi/v/mount"))?;
    unpublish_at(&node, Path::new("/nowhere/at/all"))?;
    Ok(())
}

fn a_link_on_the_way_leads_nowhere() -> Result<()> {
    let (node, _, volume) = fixture()?;
    let (folder, root) = (node.setup().folder.clone(), node.setup().kubelet_root());
    let parts = ["pods", volume.uid.as_str(), "volumes", "kubernetes.io~csi", "v", "mount"];
    for at in 1..parts.len() {
        // The component `at` is a link to where the others go on.
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
        // A tmpfs behind the link is not ours either.
        tmpfs(&target)?;
        precious(&target)?;
        unpublish_at(&node, &path)?;
        ensure!(is_whole(&target) && mounts_on(&target)?.len() == 1, "component {at}: the tmpfs was taken off");
        fs::remove_file(&link)?;
    }
    Ok(())
}

fn a_tmpfs_under_another_root_is_taken_off_and_no_more() -> Result<()> {
    let (node, ..) = fixture()?;
    let folder = node.setup().folder.clone();
    let target = under(&folder.join("var/lib/other"))?;
    precious(&target)?;
    // Stacked, and one that is seen elsewhere, too: its content stays there.
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
    // In the root directory itself, as with a kubelet whose root is /.
    ensure!(node.log().contains("its tmpfs was unmounted"), "{}", node.log());
    // Through a link below that root, no.
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
        // A directory that is there already is no volume either.
        precious(&target)?;
        publish_at(&node, &volume, &target).err().context("it was published")?;
        ensure!(is_whole(&target) && mounts_on(&target)?.is_empty());
    }
    assert_eq!(vault.counters().total() + vault.entra().total(), 0, "somebody was asked");
    node.publish(&vault.volume("demo"))?;
    Ok(())
}

fn other_providers_are_held_to_the_root_too() -> Result<()> {
    let mut setup = harness().setup();
    look_there(&mut setup)?;
    setup.flags.push(root_flag(&setup.kubelet_root()));
    let node = Node::start(setup)?;
    let provider = external_fixture::provider(&external_fixture::options(node.setup(), 1, 8080)?)?;
    external_fixture::set(&provider, "foo", "v1")?;
    external_fixture::class(&node, "demo", &["objectName: foo, objectVersion: v1"], "")?;
    let volume = external_fixture::volume("demo");
    let status = publish_at(&node, &volume, &node.setup().folder.join("target")).err().context("it was published")?;
    ensure!(status.message().contains("--kubelet-root"), "{status}");
    ensure!(provider.requests()?.is_empty(), "the provider was asked");
    node.publish(&volume)?;
    Ok(())
}

/// The chart's value was changed, or corrected, while pods ran.
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
    setup.flags.push(root_flag(&setup.kubelet_root()));
    let node = Node::start(setup)?;
    let asked = vault.counters().total();
    for _ in 0..3 {
        publish_at(&node, &volume, &target)?;
        assert_eq!(fs::read_to_string(target.join("password"))?, value);
    }
    let log = node.log();
    ensure!(log.contains("not below --kubelet-root") && log.contains("tokens are dropped"), "{log}");
    // Even a request that is refused otherwise is a success for it.
    let mut faulty = node.kubelet.publish_request(&volume);
    faulty.target_path = target.display().to_string();
    faulty.volume_context.clear();
    node.kubelet.send(faulty, DEADLINE)?;
    // A volume of ours beside it is refreshed, so that cycles are seen to go on; this one is as it was.
    let ours = vault.volume("demo");
    let refreshed = node.publish(&ours)?;
    let newer = vault.set("password");
    wait_for("the other volume is refreshed", Duration::from_secs(60), || {
        Ok(fs::read_to_string(refreshed.join("password"))? == newer)
    })?;
    assert_eq!(fs::read_to_string(target.join("password"))?, value);
    ensure!(vault.counters().total() > asked);
    // And its pod can go.
    unpublish_at(&node, &target)?;
    ensure!(mounts_on(&target)?.is_empty() && fs::read_dir(&target)?.next().is_none());
    Ok(())
}

/// After a reboot the mount is gone, and another program may have written into what is left.
fn a_bare_directory_is_cleared_and_what_is_mounted_below_is_not_entered() -> Result<()> {
    let (node, vault, volume) = fixture()?;
    node.kubelet.prepare(&volume)?;
    let target = node.kubelet.target(&volume);
    precious(&target)?;
    node.kubelet.unpublish(&volume)?;
    ensure!(!target.exists() && node.kubelet.has_forgotten(&volume));
    // A tmpfs, another directory of the same file system, and a file, each mounted somewhere below.
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
    let status = unpublish_at(&node, &target).err().context("it cannot be gone")?;
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

/// Somebody who may write into the directories above the target swaps one of them for a link as fast as it goes.
fn a_component_that_is_swapped_all_the_time_never_leads_out() -> Result<()> {
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
                // The two change places in one step, so that there always is one of them.
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

/// On some hosts the kubelet's root is a link to another disk, or a disk of its own.
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
        // As people write it.
        setup.flags.push(format!("--kubelet-root={}//", root.display()));
        let node = Node::start(setup)?;
        node.class("demo", &vault.parameters(&["password"]))?;
        let volume = vault.volume("demo");
        let target = node.publish(&volume)?;
        ensure!(target.join("password").exists());
        node.publish(&volume)?;
        node.kubelet.unpublish(&volume)?;
        ensure!(node.kubelet.has_forgotten(&volume));
    }
    Ok(())
}

fn a_root_that_is_none_keeps_the_driver_from_starting() -> Result<()> {
    for root in ["", "/", "var/lib/kubelet", "/var/../etc"] {
        let setup = harness().setup();
        let output = setup.command().arg(format!("--kubelet-root={root}")).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && told.contains("--kubelet-root") && told.contains("absolute path"),
            "{root}: {told}"
        );
    }
    Ok(())
}
