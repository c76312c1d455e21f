//! Which tmpfs are mounted where, as the kernel tells this process.
//!
//! Reads /proc/self/mountinfo, which no pod and no API object can write. Only whole file systems count, never a folder of
//! one that is bound elsewhere. `mirror` looks for volumes in it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Where tmpfs are mounted, in the order of mounting.
///
/// # Errors
/// What the kernel says.
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

/// A blank, a tab, a line feed and a backslash are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        match (first, behind) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}
