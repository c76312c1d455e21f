//! Reads the files of a published volume back from its tmpfs.
//!
//! Finds a volume by pod UID and volume name in the kernel's mount table: no path comes from the
//! API. Reads by file descriptors and follows no link except `..data`. Blocks, so it runs on a
//! thread that may.
//!
//! # Guarantees
//! All files are of one generation: `..data` is resolved once, and the read starts again if the
//! link changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use crate::model::{SecretBytes, limits};
use crate::node::volume::layout::DATA;
use crate::platform::dir::{self, Kind};
use crate::platform::mount::{self, Entry};
use crate::platform::mount_table;
use crate::secret::Files;

/// How often a volume may change while it is read.
const ATTEMPTS: usize = 5;
/// The most directory entries of a volume.
const ENTRIES: usize = 4096;

/// A published volume, with its root open.
#[derive(Debug)]
pub(super) struct Mounted {
    root: OwnedFd,
    /// Whether it has generations; a provider may have written the files itself.
    generation: bool,
    /// When the content was written.
    pub(super) written: Timestamp,
}

/// The mount points of all tmpfs.
///
/// # Errors
/// An error of the kernel.
pub(super) fn mounts() -> io::Result<Vec<PathBuf>> {
    mount_table::tmpfs()
}

/// The mount point of a pod's volume: `…/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount`.
pub(super) fn target<'a>(mounts: &'a [PathBuf], uid: &str, volume: &str) -> Option<&'a Path> {
    let tail = ["pods", uid, "volumes", "kubernetes.io~csi", volume, "mount"];
    let is_target = |path: &Path| {
        let mut found = path.components().rev();
        tail.iter().rev().all(|name| matches!(found.next(), Some(Component::Normal(part)) if part == *name))
    };
    mounts.iter().map(PathBuf::as_path).find(|path| is_target(path))
}

impl Mounted {
    /// Opens the volume on `target`; `None` if none is mounted there.
    ///
    /// # Errors
    /// An error of the kernel.
    pub(super) fn open(target: &Path) -> io::Result<Option<Mounted>> {
        let (Some(parent), Some(name)) = (target.parent(), target.file_name().and_then(|name| name.to_str())) else {
            return Ok(None);
        };
        let parent = match mount::open_directory(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let Entry::Tmpfs(root) = mount::inspect(parent.as_fd(), name)? else { return Ok(None) };
        let generation = current(root.as_fd())?.is_some();
        match written(root.as_fd()) {
            Ok(written) => Ok(Some(Mounted { root, generation, written })),
            // The volume is being unpublished.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All paths, the content of the files in `names`, and when the content was written. `None` for
    /// a volume that is being unpublished: its link is removed first, and the rest must not be
    /// mistaken for a provider's own files.
    ///
    /// # Errors
    /// More than a volume can hold, a volume that keeps changing, or an error of the kernel.
    pub(super) fn read(&self, names: &BTreeSet<String>) -> io::Result<Option<(Files, Timestamp)>> {
        for _ in 0..ATTEMPTS {
            let generation = current(self.root.as_fd())?;
            if generation.is_none() && self.generation {
                return Ok(None);
            }
            let read = match &generation {
                Some(name) => dir::open(self.root.as_fd(), name).and_then(|top| {
                    let written = modified(top.as_fd())?;
                    Ok((read(top, true, names)?, written))
                }),
                // A provider wrote the files (docs/reference/csi-driver.md#files-of-providers).
                None => {
                    let top = dir::open(self.root.as_fd(), ".")?;
                    modified(top.as_fd()).and_then(|written| Ok((read(top, false, names)?, written)))
                }
            };
            let same = current(self.root.as_fd())? == generation;
            match read {
                Ok((files, _)) if same && files.names.is_empty() => return Ok(None),
                Ok(read) if same => return Ok(Some(read)),
                Err(error) if same && error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the volume changed several times while it was read"))
    }
}

/// The name of the current generation, if the volume has generations; refuses a link out of the
/// volume.
fn current(root: BorrowedFd<'_>) -> io::Result<Option<String>> {
    match dir::read_link(root, DATA)? {
        Some(name) if name.contains('/') || name == ".." => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "its link ..data leads out of the volume"))
        }
        other => Ok(other),
    }
}

fn written(root: BorrowedFd<'_>) -> io::Result<Timestamp> {
    match current(root)? {
        Some(name) => modified(dir::open(root, name)?.as_fd()),
        None => modified(root),
    }
}

fn modified(directory: BorrowedFd<'_>) -> io::Result<Timestamp> {
    let since = dir::modified(directory)?;
    Timestamp::from_duration(since.try_into().map_err(io::Error::other)?).map_err(io::Error::other)
}

/// Every file below a directory. Without generations, names in the root that begin with `..` are
/// skipped: they are not content.
fn read(top: OwnedFd, generation: bool, names: &BTreeSet<String>) -> io::Result<Files> {
    let mut files = Files { names: BTreeSet::new(), contents: BTreeMap::new() };
    let mut room = limits::PAYLOAD as u64;
    let mut seen = 0;
    let mut pending = vec![(String::new(), 1, top)];
    while let Some((prefix, depth, directory)) = pending.pop() {
        for (name, kind) in dir::list(directory.as_fd())? {
            // An objectName is UTF-8.
            let Ok(name) = name.into_string() else { continue };
            if !generation && depth == 1 && name.starts_with("..") {
                continue;
            }
            seen += 1;
            if seen > ENTRIES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more files than a volume can hold"));
            }
            let path = format!("{prefix}{name}");
            match kind {
                Kind::Directory if depth < limits::DEPTH => {
                    pending.push((format!("{path}/"), depth + 1, dir::open(directory.as_fd(), &name)?));
                }
                Kind::File => {
                    if names.contains(&path) {
                        let (facts, content) = dir::read_file(directory.as_fd(), &name, room)?;
                        room = room.saturating_sub(facts.size);
                        files.contents.insert(path.clone(), SecretBytes::from(content));
                    }
                    files.names.insert(path);
                }
                Kind::Directory | Kind::Link | Kind::Other => {}
            }
        }
    }
    Ok(files)
}
