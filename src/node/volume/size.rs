//! Pure. How large the tmpfs of a volume is.
//!
//! The size follows from the largest payload, not from the present one: the class may change to any
//! payload within the limit, and during a write the old and the new files exist side by side. The
//! limit itself uses no memory.
//!
//! # What uses space in a tmpfs
//! * A file uses whole pages of the kernel. [`Payload`](crate::model::Payload) counts each file as
//!   at least one page of 4 KiB, so its limit also limits the number of files.
//! * A symbolic link uses a page if its text is longer than 127 bytes; the kernel keeps shorter
//!   ones in the inode (`SHORT_SYMLINK_LEN` in mm/shmem.c). Each file has at most one link in the
//!   root, to `..data/` and the first component of its path.
//! * A directory uses no page. Files, directories and links each use an inode.

use crate::model::limits::{DEPTH, PAGE};
use crate::platform::mount::TmpfsOptions;

/// The longest text of a link that uses no page, in bytes.
#[cfg(test)]
const INLINE: usize = 127;

/// The old files and links, which a write removes last, and the new ones.
const GENERATIONS: usize = 2;

/// Root, two generations, and the links to them.
const BOOKKEEPING: usize = 8;

/// The most files to size for: the kernel refuses limits that overflow its integers.
const MAX_FILES: usize = 1 << 30;

/// The tmpfs of a volume whose payload may have `limit` bytes, each file counted in whole pages of
/// 4 KiB.
pub(super) fn options(limit: usize) -> TmpfsOptions {
    let files = limit.div_ceil(PAGE).min(MAX_FILES);
    // If the kernel's pages are larger, the worst case is this many files of one page each.
    let (content, links) = (files, files);
    // The file, the directories above it, and its link.
    let inodes = files * (DEPTH + 1);
    TmpfsOptions { pages: GENERATIONS * (content + links) + BOOKKEEPING, inodes: GENERATIONS * inodes + BOOKKEEPING }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::{COMPONENT, PAYLOAD};

    /// The pages of files, given as length of the first component and size, and of their links.
    fn pages(files: &[(usize, usize)], page: usize) -> usize {
        let link = |name: usize| usize::from("..data/".len() + name > INLINE);
        files.iter().map(|(name, bytes)| bytes.div_ceil(page) + link(*name)).sum()
    }

    #[test]
    fn two_of_the_largest_payloads_fit() {
        let most = PAYLOAD / PAGE;
        for page in [4 << 10, 16 << 10, 64 << 10] {
            for files in [
                vec![(COMPONENT, 1); most],
                vec![(COMPONENT, PAGE); most],
                vec![(COMPONENT, PAYLOAD)],
                vec![(COMPONENT, PAGE + 1); most / 2],
                vec![(1, 0); most],
            ] {
                let needed = 2 * pages(&files, page);
                assert!(needed <= options(PAYLOAD).pages, "{} files, pages of {page}: {needed}", files.len());
            }
        }
        // Twice 4 MiB of files and 1,024 links.
        assert_eq!(options(PAYLOAD).pages, 4096 + 8);
        assert_eq!(options(PAYLOAD).inodes, 2 * 1024 * 17 + 8);
    }

    #[test]
    fn the_kernel_accepts_the_options_of_any_limit() {
        let TmpfsOptions { pages, inodes } = options(usize::MAX);
        assert!(pages < 1 << 33 && inodes < 1 << 37);
        assert!(options(0).pages > 0 && options(1).inodes > 0);
    }
}
