//! The writer on real directories: after each step, a reader sees one complete set of files.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::payload;
use crate::model::{Payload, limits};
use crate::node::volume::layout::{self, Step};
use crate::node::volume::writer::{self, Written};
use crate::platform::mount::open_directory;

type Files<'a> = &'a [(&'a str, u32, &'a str)];

struct Folder {
    path: tempfile::TempDir,
    root: OwnedFd,
}

impl Folder {
    fn new() -> Folder {
        let path = tempfile::tempdir().unwrap();
        let root = open_directory(path.path()).unwrap();
        Folder { path, root }
    }

    fn write(&self, payload: &Payload) -> Written {
        writer::write(self.root.as_fd(), payload, None).unwrap()
    }

    /// The files that a pod sees: path → (mode, content), without dangling links.
    fn seen(&self) -> BTreeMap<String, (u32, String)> {
        let mut seen = BTreeMap::new();
        for entry in fs::read_dir(self.path.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("..") {
                collect(&self.path.path().join(&name), &name, &mut seen);
            }
        }
        seen
    }

    /// The files that a reader sees if it resolves `..data` once.
    fn pinned(&self) -> BTreeMap<String, (u32, String)> {
        let mut seen = BTreeMap::new();
        if let Ok(data) = fs::canonicalize(self.path.path().join("..data")) {
            for entry in fs::read_dir(data).unwrap() {
                let entry = entry.unwrap();
                collect(&entry.path(), entry.file_name().to_str().unwrap(), &mut seen);
            }
        }
        seen
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn collect(at: &Path, name: &str, seen: &mut BTreeMap<String, (u32, String)>) {
    let Ok(found) = fs::metadata(at) else { return };
    if found.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            collect(&entry.path(), &format!("{name}/{}", entry.file_name().to_str().unwrap()), seen);
        }
    } else {
        // Tests run as root, which may read files of any mode.
        let content = fs::read_to_string(at).unwrap();
        seen.insert(name.to_owned(), (found.permissions().mode() & 0o7777, content));
    }
}

fn set(files: Files<'_>) -> BTreeMap<String, (u32, String)> {
    files.iter().map(|(name, mode, content)| ((*name).to_owned(), (*mode, (*content).to_owned()))).collect()
}

/// Upstream's writer table (docs/reference/csi-driver.md#writer-table): a reader sees exactly the
/// payload, whatever the volume held before.
#[test]
fn a_payload_replaces_any_other() {
    let deep = "a/b/c/d/e/f/g/h/i/j";
    let sets: [Files<'_>; 9] = [
        &[("foo", 0o644, "foo"), ("bar", 0o644, "bar")],
        &[("foo", 0o440, "foo"), ("bar", 0o644, "bar")],
        &[("foo", 0o777, "changed")],
        &[("binary.bin", 0o666, "\u{0}\u{1}ÿ")],
        &[("a/b/foo.txt", 0o644, "1"), ("a/bar.txt", 0o400, "2")],
        &[("a/c/foo.txt", 0o407, "1")],
        &[(".hidden/dot", 0o644, ""), (".file", 0o644, "x")],
        &[(deep, 0o644, "deep"), ("a/b/other", 0o644, "o")],
        &[("a", 0o644, "a file where a folder was")],
    ];
    for old in sets {
        for new in sets {
            let folder = Folder::new();
            folder.write(&payload(old));
            let expected = if old == new { Written::Unchanged } else { Written::Changed };
            assert_eq!(folder.write(&payload(new)), expected, "{old:?} → {new:?}");
            assert_eq!(folder.seen(), set(new), "{old:?} → {new:?}");
            let bookkeeping: Vec<String> = folder.names().into_iter().filter(|name| name.starts_with("..")).collect();
            assert_eq!(bookkeeping.len(), 2, "one generation and ..data: {bookkeeping:?}");
        }
    }
}

#[test]
fn an_unchanged_payload_touches_nothing() {
    let folder = Folder::new();
    let same = payload(&[("foo", 0o644, "foo"), ("nested/bar", 0o400, "bar")]);
    folder.write(&same);
    let stamp = |path: &str| fs::symlink_metadata(folder.path.path().join(path)).unwrap().modified().unwrap();
    let before = [stamp("."), stamp("..data"), stamp("foo"), stamp("..data/nested/bar")];
    assert_eq!(folder.write(&same), Written::Unchanged);
    assert_eq!(before, [stamp("."), stamp("..data"), stamp("foo"), stamp("..data/nested/bar")]);
}

#[test]
fn the_layout_is_upstreams() {
    let folder = Folder::new();
    folder.write(&payload(&[("foo", 0o644, "foo"), ("nested/bar", 0o644, "bar")]));
    let link = |name: &str| fs::read_link(folder.path.path().join(name)).unwrap().to_str().unwrap().to_owned();
    assert_eq!(link("foo"), "..data/foo");
    assert_eq!(link("nested"), "..data/nested");
    let generation = link("..data");
    let (stamp, random) = generation.strip_prefix("..").unwrap().rsplit_once('.').unwrap();
    assert_eq!(stamp.len(), "2026_11_22_01_02_03".len());
    assert!(random.bytes().all(|b| b.is_ascii_digit()), "{generation}");
    let mode = fs::metadata(folder.path.path().join(&generation)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o755);
}

const OLD: Files<'static> = &[("same", 0o644, "same"), ("value", 0o644, "old"), ("removed/one", 0o600, "x")];
const NEW: Files<'static> = &[("same", 0o644, "same"), ("value", 0o440, "new"), ("added/one", 0o600, "y")];

/// A folder that held OLD, after the first `count` steps to NEW.
fn stopped_after(count: usize) -> (Folder, Payload, usize) {
    let folder = Folder::new();
    folder.write(&payload(OLD));
    let new = payload(NEW);
    let tree = writer::read_tree(folder.root.as_fd(), limits::PAYLOAD).unwrap();
    let own = crate::platform::process::own_group();
    let steps = layout::plan(&tree, &new, None, own, "..2026_01_01_00_00_00.1");
    for step in steps.iter().take(count) {
        writer::apply(folder.root.as_fd(), step, &new, None).unwrap();
    }
    let switch = steps.iter().position(|step| *step == Step::Switch).unwrap();
    assert!(count <= steps.len());
    (folder, new, if count > switch { steps.len() } else { switch })
}

fn number_of_steps() -> usize {
    (1..).find(|count| std::panic::catch_unwind(|| stopped_after(count + 1)).is_err()).unwrap()
}

#[test]
fn a_reader_sees_the_old_set_or_the_new_one_after_each_step() {
    let all = number_of_steps();
    assert!(all > 8, "{all}");
    let mut changed_over = 0;
    for count in 0..=all {
        let (folder, ..) = stopped_after(count);
        let pinned = folder.pinned();
        assert!(pinned == set(OLD) || pinned == set(NEW), "after step {count}: {pinned:?}");
        changed_over += usize::from(pinned == set(NEW));
        // By the visible names, too, each readable file is complete and of the current set.
        for (name, file) in folder.seen() {
            assert_eq!(pinned.get(&name), Some(&file), "after step {count}: {name}");
        }
    }
    assert!(changed_over > 0 && changed_over <= all);
}

#[test]
fn a_write_after_an_interrupted_one_leaves_a_complete_volume() {
    for count in 0..=number_of_steps() {
        for then in [OLD, NEW] {
            let (folder, ..) = stopped_after(count);
            folder.write(&payload(then));
            assert_eq!(folder.seen(), set(then), "after step {count}");
            let hidden = folder.names().into_iter().filter(|name| name.starts_with("..")).count();
            assert_eq!(hidden, 2, "after step {count}: {:?}", folder.names());
            assert_eq!(folder.write(&payload(then)), Written::Unchanged);
        }
    }
}

#[test]
fn a_repair_alone_leaves_a_complete_set() {
    for count in 0..=number_of_steps() {
        let (folder, ..) = stopped_after(count);
        let pinned = folder.pinned();
        let found = writer::read_root(folder.root.as_fd()).unwrap();
        writer::repair(folder.root.as_fd(), &found).unwrap();
        assert_eq!(folder.seen(), pinned, "after step {count}");
        assert_eq!(layout::repair(&writer::read_root(folder.root.as_fd()).unwrap()), []);
    }
}

#[test]
fn a_refused_write_leaves_the_old_set_and_nothing_else() {
    let folder = Folder::new();
    folder.write(&payload(OLD));
    // A directory in place of `..data_tmp`, made after the tree was read: no step removes it.
    let new = payload(NEW);
    let tree = writer::read_tree(folder.root.as_fd(), limits::PAYLOAD).unwrap();
    fs::create_dir(folder.path.path().join("..data_tmp")).unwrap();
    let steps = layout::plan(&tree, &new, None, 0, "..2026_01_01_00_00_00.1");
    let failed = steps.iter().find_map(|step| writer::apply(folder.root.as_fd(), step, &new, None).err()).unwrap();
    assert_eq!(failed.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(folder.seen(), set(OLD));
    folder.write(&new);
    assert_eq!(folder.seen(), set(NEW));
}

#[test]
fn a_write_replaces_the_files_of_a_legacy_volume() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path.path().join("nested/deep")).unwrap();
    fs::write(folder.path.path().join("nested/deep/bar"), "old").unwrap();
    fs::write(folder.path.path().join("foo"), "old").unwrap();
    let new: Files<'_> = &[("foo", 0o644, "new"), ("nested/bar", 0o644, "new")];
    folder.write(&payload(new));
    assert_eq!(folder.seen(), set(new));
}
