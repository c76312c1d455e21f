use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::dir;
use super::mount;
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
fn something_else_in_the_sockets_place_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csi.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(listen_private(&path), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let missing = folder.path().join("no/such/folder.sock");
    assert!(matches!(listen_private(&missing), Err(SocketError::Refused { .. })));
}

#[test]
fn files_get_exactly_the_mode_asked_for() {
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
fn removal_takes_links_for_themselves() {
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
    // The way to the root is the administrator's, and a link there is fine.
    link(&folder.path().join("real"), "root");
    let root = folder.path().join("root");
    let opened = mount::open_below(&root, &["a", "b", "c"]).unwrap();
    let same = mount::open_directory(&folder.path().join("real/a/b/c")).unwrap();
    assert!(mount::same_mount(opened.as_fd(), same.as_fd()).unwrap());
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
fn old_kernels_tell_mounts_apart_as_new_ones_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    let id =
        |path: &std::path::Path| mount::mount_id_of_old_kernel(mount::open_directory(path).unwrap().as_fd()).unwrap();
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
fn entries_are_told_apart() {
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
