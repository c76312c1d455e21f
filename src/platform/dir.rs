//! Directories by descriptor: list, read, write, link, rename, remove.
//!
//! No function here takes an absolute path or follows a link in the component it acts on, so that nothing can lead
//! out of the directory. `volume::writer` puts these steps in order.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

/// What kind of entry a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, device or pipe.
    Other,
}

/// Mode and group of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The permission bits.
    pub mode: u32,
    /// The owning group.
    pub gid: u32,
    /// The size in bytes.
    pub size: u64,
}

/// Opens the directory `name` below `dir` for listing and writing.
///
/// # Errors
/// `NotFound`, `NotADirectory` (a link counts as one), or what the kernel says.
pub fn open(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name.as_ref(), flags, Mode::empty())?)
}

/// The entries of `dir` with their kinds, without `.` and `..`, in no order.
///
/// # Errors
/// What the kernel says.
pub fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(OsString, Kind)>> {
    let mut entries = Vec::new();
    // Opened anew: the caller's descriptor may be a mere O_PATH one, which cannot be listed.
    for entry in Dir::new(open(dir, ".")?)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            entries.push((name.to_owned(), kind(entry.file_type())));
        }
    }
    Ok(entries)
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Kind::Other
        }
    }
}

/// When the directory's entries changed last, since 1970.
///
/// # Errors
/// What the kernel says.
pub fn modified(dir: BorrowedFd<'_>) -> io::Result<std::time::Duration> {
    let stat = rustix::fs::fstat(dir)?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Ok(std::time::Duration::new(stat.st_mtime.unsigned_abs(), nanoseconds))
}

/// The text of the link `name`; `None` when there is no such entry or it is not a link.
///
/// # Errors
/// What the kernel says.
pub fn read_link(dir: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(text) => Ok(Some(text.into_string().map_err(io::Error::other)?)),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Mode, group and bytes of the regular file `name`.
///
/// # Errors
/// A file above `limit` bytes, or what the kernel says.
pub fn read_file(dir: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<(Facts, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&file)?;
    let facts = Facts { mode: stat.st_mode & 0o7777, gid: stat.st_gid, size: stat.st_size.unsigned_abs() };
    if facts.size > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than a volume can be"));
    }
    let mut content = Vec::with_capacity(usize::try_from(facts.size).unwrap_or_default());
    file.take(limit).read_to_end(&mut content)?;
    Ok((facts, content))
}

/// Makes the directory `name` with exactly this mode, whatever the umask.
///
/// # Errors
/// `AlreadyExists`, or what the kernel says.
pub fn make(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_bits_truncate(mode))?;
    let made = open(dir, name)?;
    Ok(rustix::fs::fchmod(&made, Mode::from_bits_truncate(mode))?)
}

/// Writes a new file with exactly this mode and, if given, this group.
///
/// It is made unreadable to others first and gets its mode last, so that nobody opens it half written.
///
/// # Errors
/// `AlreadyExists`, `StorageFull`, or what the kernel says. A file that could not be finished is left for the caller
/// to remove with its directory.
pub fn write_file(dir: BorrowedFd<'_>, name: &str, content: &[u8], mode: u32, gid: Option<u32>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    file.write_all(content)?;
    if let Some(gid) = gid {
        rustix::fs::fchown(&file, None, Some(Gid::from_raw(gid)))?;
    }
    Ok(rustix::fs::fchmod(&file, Mode::from_bits_truncate(mode))?)
}

/// Makes the symbolic link `name` with this text.
///
/// # Errors
/// `AlreadyExists`, or what the kernel says.
pub fn link(dir: BorrowedFd<'_>, name: &str, text: &str) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(text, dir, name)?)
}

/// Renames within `dir`, replacing what was there in one step.
///
/// # Errors
/// What the kernel says.
pub fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(dir, from, dir, to)?)
}

/// Removes the entry `name`, a directory with everything in it; an absent entry is fine.
///
/// Does not go into what is mounted below: that answers `ResourceBusy`.
///
/// # Errors
/// What the kernel says.
pub fn remove(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = name.as_ref();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let inner = open(dir, name)?;
    if !super::mount::same_file_system(dir, inner.as_fd())? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    clear(inner.as_fd())?;
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes every entry of `dir`, names that start with a dot included.
///
/// Goes on after a failure, so that as much as possible is gone.
///
/// # Errors
/// The first failure.
pub fn clear(dir: BorrowedFd<'_>) -> io::Result<()> {
    let mut first = Ok(());
    for (name, _) in list(dir)? {
        let removed = remove(dir, name);
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

/// Removes the empty directory `name`; an absent one is fine.
///
/// # Errors
/// `DirectoryNotEmpty`, `ResourceBusy` when something is mounted on it, or what the kernel says.
pub fn remove_empty(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a regular file of an ordinary file system, following links; never waits for a pipe or a device.
///
/// # Errors
/// It is no regular file, lies in /proc or /sys, is larger than `limit` bytes, or what the kernel says.
pub fn read_ordinary_file(path: &std::path::Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open_file(rustix::fs::openat(rustix::fs::CWD, path, UNBLOCKED, Mode::empty())?, limit)
}

/// How a file is opened that may be a pipe or a device.
pub(super) const UNBLOCKED: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The same for a file that is open already.
pub(super) fn read_open_file(file: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    let file = std::fs::File::from(file);
    // Of the open descriptor, so that nothing can be put in its place in between.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let system = rustix::fs::fstatfs(&file)?.f_type;
    if system == rustix::fs::PROC_SUPER_MAGIC || system as u64 == SYSFS_MAGIC {
        return Err(io::Error::other("it is a file of the kernel's"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}
