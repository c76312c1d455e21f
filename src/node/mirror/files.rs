//! The files of a published volume, read back from its tmpfs.
//!
//! A volume is found by pod UID and volume name among the mounts that the kernel tells of: no path comes from the API.
//! Reads by descriptors and follows no link but `..data`. Blocks, so it runs on a thread that may.
//!
//! # Guarantees
//! What is read is one generation: `..data` is resolved once, and read again from the start if it moved meanwhile.

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

/// How often a volume may change while it is read.
const ROUNDS: usize = 5;
/// The most entries of a volume that are looked at.
const ENTRIES: usize = 4096;

/// What a volume holds.
#[derive(Debug)]
pub(super) struct Files {
    /// The path of every file.
    pub(super) names: BTreeSet<String>,
    /// The content of those that were asked for and are there.
    pub(super) contents: BTreeMap<String, SecretBytes>,
}

/// A published volume, held open.
#[derive(Debug)]
pub(super) struct Mounted {
    root: OwnedFd,
    /// Whether its files are a generation, and not a provider's own.
    generation: bool,
    /// When its content was written.
    pub(super) written: Timestamp,
}

/// Where tmpfs are mounted at this moment.
///
/// # Errors
/// What the kernel says.
pub(super) fn mounts() -> io::Result<Vec<PathBuf>> {
    mount_table::tmpfs()
}

/// The mount of a pod's volume among these: `…/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount`.
pub(super) fn target<'a>(mounts: &'a [PathBuf], uid: &str, volume: &str) -> Option<&'a Path> {
    let tail = ["pods", uid, "volumes", "kubernetes.io~csi", volume, "mount"];
    let is = |path: &Path| {
        let mut found = path.components().rev();
        tail.iter().rev().all(|wanted| matches!(found.next(), Some(Component::Normal(part)) if part == *wanted))
    };
    mounts.iter().map(PathBuf::as_path).find(|path| is(path))
}

impl Mounted {
    /// Opens the volume on `target`; `None` when none is mounted there.
    ///
    /// # Errors
    /// What the kernel says.
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
            // Emptied at this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All paths, and the content of the `wanted` ones; also of when the content is. `None` for a volume that is being
    /// unpublished: its link goes first, and what is left must not be taken for a provider's own files.
    ///
    /// # Errors
    /// More than a volume can hold, a volume that changes all the time, or what the kernel says.
    pub(super) fn read(&self, wanted: &BTreeSet<String>) -> io::Result<Option<(Files, Timestamp)>> {
        for _ in 0..ROUNDS {
            let generation = current(self.root.as_fd())?;
            if generation.is_none() && self.generation {
                return Ok(None);
            }
            let read = match &generation {
                Some(name) => dir::open(self.root.as_fd(), name).and_then(|top| {
                    let written = modified(top.as_fd())?;
                    Ok((read(top, true, wanted)?, written))
                }),
                // Files that a provider wrote itself
                // (docs/reference/csi-driver.md#files-of-providers).
                None => {
                    let top = dir::open(self.root.as_fd(), ".")?;
                    modified(top.as_fd()).and_then(|written| Ok((read(top, false, wanted)?, written)))
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
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the volume changed while it was read, several times"))
    }
}

/// The name of the generation that readers see, if there is one; a link that leads elsewhere is refused.
fn current(root: BorrowedFd<'_>) -> io::Result<Option<String>> {
    match dir::read_link(root, DATA)? {
        Some(name) if name.contains('/') || name == ".." => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "its ..data leads out of the volume"))
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

/// Every file below a directory; in the root of a volume, what begins with `..` is bookkeeping.
fn read(top: OwnedFd, generation: bool, wanted: &BTreeSet<String>) -> io::Result<Files> {
    let mut files = Files { names: BTreeSet::new(), contents: BTreeMap::new() };
    let mut room = limits::PAYLOAD as u64;
    let mut seen = 0;
    let mut pending = vec![(String::new(), 1, top)];
    while let Some((prefix, depth, directory)) = pending.pop() {
        for (name, kind) in dir::list(directory.as_fd())? {
            // What is not UTF-8 is nobody's objectName.
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
                    if wanted.contains(&path) {
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
