//! The mount points of tmpfs in this process's mount namespace.
//!
//! Reads /proc/self/mountinfo, which no pod and no API object can write. Returns mounts of whole
//! file systems only, never bind mounts of a subdirectory.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// The mount points of tmpfs, in the order of mounting.
///
/// # Errors
/// /proc/self/mountinfo cannot be read.
pub fn tmpfs() -> io::Result<Vec<PathBuf>> {
    Ok(std::fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(mount_point).collect())
}

/// The mount point of a line, if a whole tmpfs is mounted there (proc_pid_mountinfo(5)).
pub(super) fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    (root == b"/" && kind == b"tmpfs").then(|| PathBuf::from(OsString::from_vec(unescape(point))))
}

/// The kernel writes a blank, a tab, a line feed and a backslash as a backslash and three octal
/// digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, following)) = rest.split_first() {
        match (first, following) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = following;
            }
        }
    }
    plain
}
