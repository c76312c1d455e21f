//! Sockets, files by descriptor, mount tables and contained paths, without mounting.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::contained::{ContainedFileError, read_file_in};
use super::dir;
use super::mount;
use super::mount_id;
use super::mount_table;
use super::socket::{SocketError, listen_private};

#[test]
fn a_socket_is_private_from_its_first_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csi.sock");
    let _listener = listen_private(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csi.sock");
    drop(UnixListener::bind(&path).unwrap());
    let (live, _) = listen_private(&path).unwrap();
    assert!(matches!(listen_private(&path), Err(SocketError::InUse(_))));
    drop(live);
    listen_private(&path).unwrap();
}

#[test]
fn a_file_that_is_not_a_socket_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csi.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(listen_private(&path), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let missing = folder.path().join("no/such/folder.sock");
    assert!(matches!(listen_private(&missing), Err(SocketError::Refused { .. })));
}

#[test]
fn files_get_exactly_the_requested_mode() {
    let folder = tempfile::tempdir().unwrap();
    let root = mount::open_directory(folder.path()).unwrap();
    for mode in [0o400, 0o407, 0o440, 0o644, 0o777, 0o000] {
        let name = format!("{mode:o}");
        dir::write_file(root.as_fd(), &name, b"x", mode, None).unwrap();
        let found = std::fs::metadata(folder.path().join(&name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode);
    }
    let again = dir::write_file(root.as_fd(), "644", b"y", 0o644, None).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn removal_does_not_follow_links() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), "x").unwrap();
    std::fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("a/b/link")).unwrap();
    std::fs::write(folder.path().join(".hidden"), "x").unwrap();
    let root = mount::open_directory(folder.path()).unwrap();
    dir::clear(root.as_fd()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(outside.path().join("precious").exists());
}

#[test]
fn no_component_below_the_root_may_be_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("real/a/b/c")).unwrap();
    std::fs::create_dir_all(outside.path().join("b/c")).unwrap();
    let link = |to: &std::path::Path, at: &str| std::os::unix::fs::symlink(to, folder.path().join(at)).unwrap();
    // The administrator controls the path to the root, so it may contain a link.
    link(&folder.path().join("real"), "root");
    let root = folder.path().join("root");
    let opened = mount::open_below(&root, &["a", "b", "c"]).unwrap();
    let same = mount::open_directory(&folder.path().join("real/a/b/c")).unwrap();
    assert!(mount_id::same_directory(opened.as_fd(), same.as_fd()).unwrap());
    link(outside.path(), "real/out");
    link("a".as_ref(), "real/in");
    link("loop".as_ref(), "real/loop");
    link("/proc/self/cwd".as_ref(), "real/magic");
    std::fs::write(folder.path().join("real/file"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path().join("b"), folder.path().join("real/a/last")).unwrap();
    for components in [&["out", "b", "c"][..], &["in", "b"], &["loop"], &["magic"], &["a", "last"], &["a", "last", "c"]]
    {
        let error = mount::open_below(&root, components).unwrap_err();
        assert!(mount::is_link(&error), "{components:?}: {error}");
    }
    for (components, kind) in [
        (&["a", "gone"][..], std::io::ErrorKind::NotFound),
        (&["a", "gone", "c"], std::io::ErrorKind::NotFound),
        (&["file"], std::io::ErrorKind::NotADirectory),
        (&["file", "c"], std::io::ErrorKind::NotADirectory),
    ] {
        let error = mount::open_below(&root, components).unwrap_err();
        assert!(error.kind() == kind && !mount::is_link(&error), "{components:?}: {error}");
    }
    assert_eq!(mount::open_below(&folder.path().join("no"), &[]).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn old_kernels_distinguish_mounts_as_new_ones_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    let id = |path: &std::path::Path| {
        mount_id::mount_id_of_old_kernel(mount::open_directory(path).unwrap().as_fd()).unwrap()
    };
    assert_eq!(id(folder.path()), id(&folder.path().join("below")));
    assert_ne!(id("/".as_ref()), id("/proc".as_ref()));
    let numbers: Vec<u64> = std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/proc"))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.contains(&id("/proc".as_ref())), "{numbers:?}");
}

#[test]
fn entries_are_classified() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("dir")).unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    std::os::unix::fs::symlink("dir", folder.path().join("link")).unwrap();
    let root = mount::open_directory(folder.path()).unwrap();
    let at = |name| mount::inspect(root.as_fd(), name).unwrap();
    assert!(matches!(at("absent"), mount::Entry::Absent));
    assert!(matches!(at("dir"), mount::Entry::Directory(_)));
    assert!(matches!(at("file"), mount::Entry::NotDirectory));
    assert!(matches!(at("link"), mount::Entry::NotDirectory));
    let system = mount::open_directory(std::path::Path::new("/")).unwrap();
    assert!(matches!(mount::inspect(system.as_fd(), "proc").unwrap(), mount::Entry::OtherMount));
}

#[test]
fn only_ordinary_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(dir::read_ordinary_file(&path, 5).unwrap(), b"12345");
    assert!(dir::read_ordinary_file(&path, 4).is_err());
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for odd in [pipe.as_path(), folder.path(), "/proc/self/status".as_ref(), "/dev/zero".as_ref()] {
        assert!(dir::read_ordinary_file(odd, 5).is_err(), "{}", odd.display());
    }
}

#[test]
fn names_that_are_not_utf8_are_removed_too() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
    let root = mount::open_directory(folder.path()).unwrap();
    dir::clear(root.as_fd()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn only_whole_tmpfs_of_the_mount_table_count() {
    let point = |line: &str| mount_table::mount_point(line.as_bytes()).map(|path| path.display().to_string());
    for (line, expected) in [
        ("36 35 0:98 / /var/a/mount rw,noatime shared:1 master:2 - tmpfs tmpfs rw", Some("/var/a/mount")),
        ("36 35 0:98 / /with\\040blank\\134x\\0 rw - tmpfs tmpfs rw", Some("/with blank\\x\\0")),
        ("36 35 0:98 / /plain rw - tmpfs tmpfs rw", Some("/plain")),
        ("36 35 0:98 /folder /bound rw - tmpfs tmpfs rw", None),
        ("36 35 8:1 / / rw - ext4 /dev/sda1 rw", None),
        ("36 35 8:1 / /tmpfs rw tmpfs - ext4 tmpfs rw", None),
        ("", None),
        ("36 35", None),
    ] {
        assert_eq!(point(line).as_deref(), expected, "{line}");
    }
    // The kernel's own table can be read.
    assert!(mount_table::tmpfs().unwrap().iter().all(|path| path.is_absolute()));
}

/// A folder like that of a mounted ConfigMap, with the file `a`, and a file outside of it.
fn contained() -> (tempfile::TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("clouds");
    std::fs::create_dir_all(folder.join("..2026/below")).unwrap();
    std::fs::write(folder.join("..2026/a"), "inside").unwrap();
    std::fs::write(folder.join("..2026/below/b"), "below").unwrap();
    std::fs::write(outer.path().join("secret"), "outside").unwrap();
    for (target, link) in [("..2026", "..data"), ("..data/a", "a"), ("..data/below", "below")] {
        std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
    }
    (outer, folder)
}

fn read_in(folder: &std::path::Path, path: impl AsRef<std::path::Path>) -> Result<Vec<u8>, ContainedFileError> {
    read_file_in(folder, path.as_ref(), 100)
}

#[test]
fn links_are_followed_within_the_folder() {
    let (outer, folder) = contained();
    for path in ["a", "..data/a", "..2026/a", "below/../a", "./a", "..2026/below/../../a"] {
        assert_eq!(read_in(&folder, path).unwrap(), b"inside", "{path}");
    }
    assert_eq!(read_in(&folder, "below/b").unwrap(), b"below");
    // Absolute links, through both names of the folder.
    std::os::unix::fs::symlink(&folder, outer.path().join("other-name")).unwrap();
    std::os::unix::fs::symlink(folder.join("..data/a"), folder.join("absolute")).unwrap();
    for folder in [&folder, &outer.path().join("other-name")] {
        assert_eq!(read_in(folder, "absolute").unwrap(), b"inside");
    }
}

#[test]
fn nothing_leads_out_of_the_folder_and_errors_reveal_nothing_outside() {
    let (outer, folder) = contained();
    let outside = outer.path().display().to_string();
    for (target, link) in [
        ("../secret".to_owned(), "out"),
        ("../absent".to_owned(), "dangling-out"),
        (format!("{outside}/secret"), "absolute-out"),
        (format!("{outside}/clouds/../secret"), "absolute-around"),
        (format!("{outside}/clouds-beside/a"), "absolute-beside"),
        ("/proc/self/root/etc/passwd".to_owned(), "by-proc"),
        ("..".to_owned(), "up"),
        ("out".to_owned(), "link-to-link"),
    ] {
        std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
    }
    for path in [
        "..",
        "../secret",
        "../absent",
        "below/../../../secret",
        "..data/../../secret",
        "/etc/passwd",
        "/absent",
        "out",
        "dangling-out",
        "absolute-out",
        "absolute-around",
        "absolute-beside",
        "by-proc",
        "up/secret",
        "up/absent",
        "link-to-link",
    ] {
        assert!(
            matches!(read_in(&folder, path), Err(ContainedFileError::LeadsOut)),
            "{path}: {:?}",
            read_in(&folder, path)
        );
    }
}

#[test]
fn only_ordinary_files_of_the_folder_are_read() {
    let (_outer, folder) = contained();
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
    std::fs::write(folder.join("large"), [b'x'; 101]).unwrap();
    for path in ["", ".", "below", "..data", "absent", "a/b", "a/..", "socket", "pipe", "loop", "large"] {
        assert!(
            matches!(read_in(&folder, path), Err(ContainedFileError::Unreadable(_))),
            "{path}: {:?}",
            read_in(&folder, path)
        );
    }
}

/// Reading a link that changes meanwhile uses the old or the new target, and never leads out of the
/// folder.
#[test]
fn a_link_that_changes_meanwhile_does_not_lead_out() {
    let (outer, folder) = contained();
    let targets = ["..data/a".to_owned(), "../secret".to_owned(), outer.path().join("secret").display().to_string()];
    std::os::unix::fs::symlink(&targets[0], folder.join("moving")).unwrap();
    let finished = std::sync::atomic::AtomicBool::new(false);
    let (mut successes, mut refusals) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for target in targets.iter().cycle() {
                if finished.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                std::os::unix::fs::symlink(target, folder.join("new")).unwrap();
                std::fs::rename(folder.join("new"), folder.join("moving")).unwrap();
            }
        });
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while (successes < 500 || refusals < 500) && std::time::Instant::now() < deadline {
            match read_in(&folder, "moving") {
                Ok(content) => {
                    assert_eq!(content, b"inside");
                    successes += 1;
                }
                Err(_) => refusals += 1,
            }
        }
        finished.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(successes >= 500 && refusals >= 500, "{successes} read, {refusals} refused");
}
