//! Applies the steps of `layout` to a volume's root directory, and reads volumes.
//!
//! `layout` decides; this module accepts only descriptors of a proven volume root, never a path.
//! Runs on threads for blocking work.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::layout::{self, DATA, Entry, FileFacts, Group, Root, Step, Tree};
use crate::model::{ExposeSecret as _, FileName, Payload, SecretBytes, limits};
use crate::platform::dir::{self, FileMetadata, Kind};
use crate::platform::process;

/// The mode of the directories in a volume.
const DIRECTORY_MODE: u32 = 0o755;

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The volume already held the payload.
    Unchanged,
    /// Files or links were written.
    Changed,
}

/// Makes the volume hold exactly `payload`; writes nothing if it already does.
///
/// # Errors
/// Errors of the kernel. Readers see the old files then, and the new generation is removed.
pub fn write(root: BorrowedFd<'_>, payload: &Payload, group: Option<Group>) -> io::Result<Written> {
    let generation = generation_name(jiff::Timestamp::now())?;
    let own_gid = process::own_group();
    let steps = layout::plan(&read_tree(root, payload.limit())?, payload, group, own_gid, &generation);
    for (at, step) in steps.iter().enumerate() {
        let Err(error) = apply(root, step, payload, group) else { continue };
        if steps[at..].contains(&Step::Switch) {
            // Readers see the old generation. If the removal fails, the next write repeats it.
            let _ = dir::remove(root, layout::DATA_TMP);
            let _ = dir::remove(root, &generation);
        }
        return Err(error);
    }
    Ok(if steps.is_empty() { Written::Unchanged } else { Written::Changed })
}

/// Applies one step.
///
/// # Errors
/// Errors of the kernel.
pub fn apply(root: BorrowedFd<'_>, step: &Step, payload: &Payload, group: Option<Group>) -> io::Result<()> {
    match step {
        Step::WriteFile(index, path) => {
            let file = payload.files().get(*index).ok_or(io::ErrorKind::InvalidInput)?;
            let (mode, gid) = layout::ownership(file.mode, group);
            dir::write_file(root, path, file.content.expose_secret(), mode, gid)
        }
        Step::Remove(name) => dir::remove(root, name),
        Step::MakeDirectory(path) => dir::make(root, path, DIRECTORY_MODE),
        Step::Prepare(generation) => dir::link(root, layout::DATA_TMP, generation),
        Step::Switch => dir::rename(root, layout::DATA_TMP, DATA),
        Step::Link(name) => dir::link(root, name, &format!("{DATA}/{name}")),
    }
}

/// Repairs a volume whose last write was interrupted, without new content.
///
/// # Errors
/// Errors of the kernel.
pub fn repair(root: BorrowedFd<'_>, found: &Root) -> io::Result<()> {
    for step in layout::repair(found) {
        match &step {
            Step::Remove(name) => dir::remove(root, name)?,
            Step::Link(name) => dir::link(root, name, &format!("{DATA}/{name}"))?,
            Step::MakeDirectory(_) | Step::WriteFile(..) | Step::Prepare(_) | Step::Switch => {
                return Err(io::Error::other("a repair writes no content"));
            }
        }
    }
    Ok(())
}

/// Reads a volume's root directory, from which its state follows.
///
/// # Errors
/// Errors of the kernel.
pub fn read_root(root: BorrowedFd<'_>) -> io::Result<Root> {
    let mut entries = BTreeMap::new();
    for (name, kind) in dir::list(root)? {
        // The driver writes UTF-8 names only, so other names stay and cannot collide.
        let Ok(name) = name.into_string() else { continue };
        let entry = match kind {
            Kind::Link => Entry::Link(dir::read_link(root, &name)?.unwrap_or_default()),
            Kind::Directory => Entry::Directory,
            Kind::File | Kind::Other => Entry::File,
        };
        entries.insert(name, entry);
    }
    let current = match entries.get(DATA) {
        Some(Entry::Link(generation)) if entries.get(generation) == Some(&Entry::Directory) => {
            let inner = dir::open(root, generation)?;
            Some(dir::list(inner.as_fd())?.into_iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect())
        }
        Some(Entry::Link(_) | Entry::Directory | Entry::File) | None => None,
    };
    Ok(Root { entries, current })
}

/// Reads a volume, with the digest of each file of at most `limit` bytes.
///
/// # Errors
/// Errors of the kernel.
pub fn read_tree(root: BorrowedFd<'_>, limit: usize) -> io::Result<Tree> {
    // No payload has a file with these facts, so the next write replaces the generation.
    const FOREIGN: FileFacts = FileFacts { mode: u32::MAX, gid: 0, digest: [0; 32] };
    let mut tree = Tree { root: read_root(root)?, files: BTreeMap::new() };
    if let Some(generation) = tree.root.generation() {
        let top = dir::open(root, generation)?;
        let mut pending = vec![(String::new(), top)];
        while let Some((prefix, directory)) = pending.pop() {
            for (name, kind) in dir::list(directory.as_fd())? {
                let name = name.to_string_lossy().into_owned();
                let path = format!("{prefix}{name}");
                match kind {
                    Kind::Directory => pending.push((format!("{path}/"), dir::open(directory.as_fd(), &name)?)),
                    Kind::File => {
                        let facts = match dir::read_file(directory.as_fd(), &name, limit as u64) {
                            Ok((FileMetadata { mode, gid, .. }, content)) => {
                                FileFacts { mode, gid, digest: layout::digest(&content) }
                            }
                            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => FOREIGN,
                            Err(error) => return Err(error),
                        };
                        tree.files.insert(path, facts);
                    }
                    Kind::Link | Kind::Other => {
                        tree.files.insert(path, FOREIGN);
                    }
                }
            }
        }
    }
    Ok(tree)
}

/// Reads files of the current generation; `None` if one of them does not exist.
///
/// # Errors
/// Errors of the kernel.
pub fn read_files(root: BorrowedFd<'_>, names: &[FileName]) -> io::Result<Option<Vec<SecretBytes>>> {
    let found = read_root(root)?;
    let Some(generation) = found.generation() else { return Ok(None) };
    let top = dir::open(root, generation)?;
    let read = names.iter().map(|name| read_file(top.as_fd(), name));
    match read.collect::<io::Result<Vec<SecretBytes>>>() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn read_file(top: BorrowedFd<'_>, name: &FileName) -> io::Result<SecretBytes> {
    let mut directory = None;
    let mut components = name.components().peekable();
    while let Some(component) = components.next() {
        let at = directory.as_ref().map_or(top, OwnedFd::as_fd);
        if components.peek().is_some() {
            directory = Some(dir::open(at, component)?);
            continue;
        }
        let (_, content) = dir::read_file(at, component, limits::PAYLOAD as u64)?;
        return Ok(SecretBytes::from(content));
    }
    Err(io::ErrorKind::NotFound.into())
}

/// `..2026_11_22_01_02_03.` and a random number, as upstream names generations.
fn generation_name(now: jiff::Timestamp) -> io::Result<String> {
    Ok(format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), process::random_number()?))
}
