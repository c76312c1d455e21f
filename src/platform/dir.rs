//! Directories by descriptor: list, read, write, link, rename, remove.
//!
//! No function except [`read_ordinary_file`] accepts an absolute path or follows a link in the
//! component on which it acts, so that no entry leads out of the directory.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

use super::mount_id::on_same_mount;

/// The type of a directory entry.
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

/// Mode, group and size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMetadata {
    /// The permission bits.
    pub mode: u32,
    /// The owning group.
    pub gid: u32,
    /// In bytes.
    pub size: u64,
}

/// Opens the directory `name` below `dir` for listing and writing.
///
/// # Errors
/// `NotFound`, `NotADirectory` (also for a link), or another error of the kernel.
pub fn open(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name.as_ref(), flags, Mode::empty())?)
}

/// The entries of `dir` with their types, without `.` and `..`, in no order.
///
/// # Errors
/// The kernel's error.
pub fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(OsString, Kind)>> {
    let mut entries = Vec::new();
    // The caller's descriptor may be O_PATH, which cannot be listed.
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

/// When the directory's entries last changed, since 1970.
///
/// # Errors
/// The kernel's error.
pub fn modified(dir: BorrowedFd<'_>) -> io::Result<std::time::Duration> {
    let stat = rustix::fs::fstat(dir)?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Ok(std::time::Duration::new(stat.st_mtime.unsigned_abs(), nanoseconds))
}

/// The text of the link `name`; `None` if the entry is absent or not a link.
///
/// # Errors
/// The kernel's error.
pub fn read_link(dir: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(text) => Ok(Some(text.into_string().map_err(io::Error::other)?)),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Metadata and content of the regular file `name`.
///
/// # Errors
/// `FileTooLarge` above `limit` bytes, or another error of the kernel.
pub fn read_file(dir: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<(FileMetadata, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&file)?;
    let metadata = FileMetadata { mode: stat.st_mode & 0o7777, gid: stat.st_gid, size: stat.st_size.unsigned_abs() };
    if metadata.size > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than a volume can be"));
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.size).unwrap_or_default());
    file.take(limit).read_to_end(&mut content)?;
    Ok((metadata, content))
}

/// Creates the directory `name` with exactly this mode, regardless of the umask.
///
/// # Errors
/// `AlreadyExists`, or another error of the kernel.
pub fn make(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_bits_truncate(mode))?;
    let made = open(dir, name)?;
    Ok(rustix::fs::fchmod(&made, Mode::from_bits_truncate(mode))?)
}

/// Creates a file with exactly this mode and, if given, this group.
///
/// The mode is 0 until the content is complete, so that no other process opens the file half
/// written.
///
/// # Errors
/// `AlreadyExists`, `StorageFull`, or another error of the kernel. An incomplete file stays; the
/// caller removes it with its directory.
pub fn write_file(dir: BorrowedFd<'_>, name: &str, content: &[u8], mode: u32, gid: Option<u32>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    file.write_all(content)?;
    if let Some(gid) = gid {
        rustix::fs::fchown(&file, None, Some(Gid::from_raw(gid)))?;
    }
    Ok(rustix::fs::fchmod(&file, Mode::from_bits_truncate(mode))?)
}

/// Creates the symbolic link `name` with this text.
///
/// # Errors
/// `AlreadyExists`, or another error of the kernel.
pub fn link(dir: BorrowedFd<'_>, name: &str, text: &str) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(text, dir, name)?)
}

/// Renames within `dir`; replaces an existing entry atomically.
///
/// # Errors
/// The kernel's error.
pub fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(dir, from, dir, to)?)
}

/// Removes the entry `name`, a directory with its content; succeeds if the entry is absent.
///
/// # Errors
/// `ResourceBusy` if another file system is mounted below, or another error of the kernel.
pub fn remove(dir: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = name.as_ref();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let inner = open(dir, name)?;
    if !on_same_mount(dir, inner.as_fd())? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    clear(inner.as_fd())?;
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes every entry of `dir`, including names that start with a dot.
///
/// Continues after a failure, to remove as much as possible.
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

/// Removes the empty directory `name`; succeeds if it is absent.
///
/// # Errors
/// `DirectoryNotEmpty`, `ResourceBusy` if it is a mount point, or another error of the kernel.
pub fn remove_empty(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a regular file of an ordinary file system, and follows links; never waits for a pipe or a
/// device.
///
/// # Errors
/// The file is not a regular file, is in /proc or /sys, or is larger than `limit` bytes; or the
/// kernel refuses.
pub fn read_ordinary_file(path: &std::path::Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open_file(rustix::fs::openat(rustix::fs::CWD, path, NON_BLOCKING, Mode::empty())?, limit)
}

/// Flags for opening a file that may be a pipe or a device.
pub(super) const NON_BLOCKING: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Like [`read_ordinary_file`], with an open file.
pub(super) fn read_open_file(file: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    let file = std::fs::File::from(file);
    // Checks the open descriptor and not the path, so that the file cannot be replaced in between.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let system = rustix::fs::fstatfs(&file)?.f_type;
    if system == rustix::fs::PROC_SUPER_MAGIC || system as u64 == SYSFS_MAGIC {
        return Err(io::Error::other("it is a file of the kernel (in /proc or /sys)"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}
