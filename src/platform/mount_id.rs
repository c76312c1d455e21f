//! Compares the mounts of two descriptors.
//!
//! Uses mount ids, not device numbers: only these distinguish a bind mount within one file system.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, StatxFlags};

/// Whether the two descriptors refer to the same directory on the same mount.
///
/// # Errors
/// The kernel's error.
pub fn same_directory(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(mount_and_inode(a)? == mount_and_inode(b)?)
}

/// Whether the two descriptors are on one mount. A bind mount between them makes it false.
///
/// # Errors
/// The kernel's error.
pub fn on_same_mount(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let ((a, _), (b, _)) = (mount_and_inode(a)?, mount_and_inode(b)?);
    Ok(a == b)
}

/// The mount and device of a descriptor, and its inode.
fn mount_and_inode(fd: BorrowedFd<'_>) -> io::Result<((u64, u32, u32), u64)> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::INO)?;
    let has_mount_id = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    let mount = if has_mount_id { stat.stx_mnt_id } else { mount_id_of_old_kernel(fd)? };
    Ok(((mount, stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino))
}

/// The mount id of a descriptor before Linux 5.8, which lacks STATX_MNT_ID: the line `mnt_id:` of
/// fdinfo, see proc(5).
pub(super) fn mount_id_of_old_kernel(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line.and_then(|id| id.trim().parse().ok()).ok_or_else(|| io::Error::other("/proc/self/fdinfo has no mnt_id"))
}
