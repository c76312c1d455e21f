//! Files of one folder, from which no name and no link leads out.
//!
//! Resolves a path as `openat2` does with `RESOLVE_BENEATH`, but in steps of its own: so it is the same on kernels
//! without that call (before 5.6), and follows absolute links too where they point into the folder. A mounted ConfigMap
//! consists of links that stay within it.
//!
//! # Guarantees
//! Every component is opened relative to the descriptor of the one before and never followed by the kernel, so that a
//! link that changes meanwhile leads nowhere else. `..` returns to a descriptor passed before, never above the folder.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::dir;

/// How many links one path may lead over: the kernel's own limit.
const LINKS: usize = 40;

/// Why a file cannot be read.
#[derive(Debug)]
pub enum Refusal {
    /// The path leads out of the folder; nothing outside was looked at.
    LeadsOut,
    /// The folder or the file cannot be read.
    Unreadable(io::Error),
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Refusal {
        Refusal::Unreadable(error.into())
    }
}

/// Reads the regular file at `path`, relative to `folder`, up to `limit` bytes; never waits for a pipe or a device.
///
/// # Errors
/// A path that leads out of the folder, a file that [`dir::read_ordinary_file`] would not read either, or what the
/// kernel says.
pub fn read_file_in(folder: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, Refusal> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut passed = vec![rustix::fs::openat(CWD, folder, flags, Mode::empty())?];
    let mut left = components(path)?;
    let mut links = 0;
    while let Some(step) = left.pop_front() {
        let Step::Into(name) = step else {
            // The folder itself stays at the bottom.
            if passed.len() == 1 {
                return Err(Refusal::LeadsOut);
            }
            passed.pop();
            continue;
        };
        let here = passed.last().ok_or(Refusal::LeadsOut)?.as_fd();
        let seen = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = rustix::fs::openat(here, &name, seen, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                let target = PathBuf::from(OsString::from_vec(link_text(&entry)?));
                if target.is_absolute() {
                    passed.truncate(1);
                }
                for step in components(&below(folder, &target)?)?.into_iter().rev() {
                    left.push_front(step);
                }
            }
            FileType::Directory => passed.push(entry),
            FileType::RegularFile if left.is_empty() => {
                let file = rustix::fs::openat(here, &name, dir::UNBLOCKED | OFlags::NOFOLLOW, Mode::empty())?;
                return dir::read_open_file(file, limit).map_err(Refusal::Unreadable);
            }
            FileType::RegularFile => return Err(rustix::io::Errno::NOTDIR.into()),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => break,
        }
    }
    Err(Refusal::Unreadable(io::Error::other("it is not a regular file")))
}

enum Step {
    Into(OsString),
    Up,
}

fn components(path: &Path) -> Result<VecDeque<Step>, Refusal> {
    let step = |component| match component {
        Component::Normal(name) => Some(Ok(Step::Into(name.to_owned()))),
        Component::ParentDir => Some(Ok(Step::Up)),
        Component::CurDir => None,
        Component::RootDir | Component::Prefix(_) => Some(Err(Refusal::LeadsOut)),
    };
    path.components().filter_map(step).collect()
}

/// `path` as one from `folder`, where it is absolute and lies in it by one of the folder's two names: the given one, or
/// the one without links. A relative path stays as it is. Looks at nothing but the folder.
///
/// # Errors
/// [`Refusal::LeadsOut`].
pub fn below(folder: &Path, path: &Path) -> Result<PathBuf, Refusal> {
    if !path.is_absolute() {
        return Ok(path.to_owned());
    }
    if let Ok(below) = path.strip_prefix(folder) {
        return Ok(below.to_owned());
    }
    let real = std::fs::canonicalize(folder).map_err(|_| Refusal::LeadsOut)?;
    path.strip_prefix(real).map(Path::to_owned).map_err(|_| Refusal::LeadsOut)
}

fn link_text(link: &OwnedFd) -> Result<Vec<u8>, Refusal> {
    // The empty name stands for the descriptor's own link.
    Ok(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes())
}
