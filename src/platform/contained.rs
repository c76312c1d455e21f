//! Reads files in one folder; no path and no link leads out of it.
//!
//! Resolves a path as `openat2` does with `RESOLVE_BENEATH`, but component by component: this also
//! works on kernels without that call (before 5.6), and follows absolute links that point into the
//! folder. A mounted ConfigMap consists of links within its folder.
//!
//! # Guarantees
//! Each component is opened relative to the descriptor of the previous one, and the kernel follows
//! no link, so a link that changes meanwhile cannot lead out. `..` returns to an earlier
//! descriptor, never above the folder.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::dir;

/// Links in the resolution of one path: the kernel's limit.
const MAX_LINKS: usize = 40;

/// Why a file in a folder cannot be read.
#[derive(Debug)]
pub enum ContainedFileError {
    /// The path leads out of the folder. Nothing outside was opened.
    LeadsOut,
    /// The kernel's error for the folder or the file.
    Unreadable(io::Error),
}

impl From<rustix::io::Errno> for ContainedFileError {
    fn from(error: rustix::io::Errno) -> ContainedFileError {
        ContainedFileError::Unreadable(error.into())
    }
}

/// Reads the regular file at `path`, relative to `folder`, up to `limit` bytes; never waits for a
/// pipe or a device.
///
/// # Errors
/// The path leads out of the folder, [`dir::read_ordinary_file`] would refuse the file, or the
/// kernel does.
pub fn read_file_in(folder: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, ContainedFileError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut ancestors = vec![rustix::fs::openat(CWD, folder, flags, Mode::empty())?];
    let mut remaining = components(path)?;
    let mut links = 0;
    while let Some(step) = remaining.pop_front() {
        let Step::Into(name) = step else {
            // The first ancestor is the folder.
            if ancestors.len() == 1 {
                return Err(ContainedFileError::LeadsOut);
            }
            ancestors.pop();
            continue;
        };
        let here = ancestors.last().ok_or(ContainedFileError::LeadsOut)?.as_fd();
        let unfollowed = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = rustix::fs::openat(here, &name, unfollowed, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                let target = PathBuf::from(OsString::from_vec(link_text(&entry)?));
                if target.is_absolute() {
                    ancestors.truncate(1);
                }
                for step in components(&below(folder, &target)?)?.into_iter().rev() {
                    remaining.push_front(step);
                }
            }
            FileType::Directory => ancestors.push(entry),
            FileType::RegularFile if remaining.is_empty() => {
                let file = rustix::fs::openat(here, &name, dir::NON_BLOCKING | OFlags::NOFOLLOW, Mode::empty())?;
                return dir::read_open_file(file, limit).map_err(ContainedFileError::Unreadable);
            }
            FileType::RegularFile => return Err(rustix::io::Errno::NOTDIR.into()),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => break,
        }
    }
    Err(ContainedFileError::Unreadable(io::Error::other("it is not a regular file")))
}

enum Step {
    Into(OsString),
    Up,
}

fn components(path: &Path) -> Result<VecDeque<Step>, ContainedFileError> {
    let step = |component| match component {
        Component::Normal(name) => Some(Ok(Step::Into(name.to_owned()))),
        Component::ParentDir => Some(Ok(Step::Up)),
        Component::CurDir => None,
        Component::RootDir | Component::Prefix(_) => Some(Err(ContainedFileError::LeadsOut)),
    };
    path.components().filter_map(step).collect()
}

/// Makes an absolute `path` in `folder` relative to it. The path may start with the folder's given
/// name, or with its name without links. Returns a relative path unchanged. Accesses only the
/// folder.
///
/// # Errors
/// [`ContainedFileError::LeadsOut`].
pub fn below(folder: &Path, path: &Path) -> Result<PathBuf, ContainedFileError> {
    if !path.is_absolute() {
        return Ok(path.to_owned());
    }
    if let Ok(below) = path.strip_prefix(folder) {
        return Ok(below.to_owned());
    }
    let real = std::fs::canonicalize(folder).map_err(|_| ContainedFileError::LeadsOut)?;
    path.strip_prefix(real).map(Path::to_owned).map_err(|_| ContainedFileError::LeadsOut)
}

fn link_text(link: &OwnedFd) -> Result<Vec<u8>, ContainedFileError> {
    // The empty name means the link that the descriptor refers to.
    Ok(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes())
}
