//! Pure. How large a volume's tmpfs is.
//!
//! Follows from what a payload may be, not from what the present one is: the class may be changed to anything that
//! fits, and then old and new content stand side by side. A limit costs no memory.
//!
//! # What takes room in a tmpfs
//! * A file takes its bytes in whole pages of the kernel. [`Payload`](crate::model::Payload) counts each as at
//!   least one page of 4 KiB, so that its limit is also one for the number of files.
//! * A link takes a page if its text is longer than 127 bytes; shorter ones stand in the inode
//!   (`SHORT_SYMLINK_LEN` in mm/shmem.c). Each file has one link in the root at most, to `..data/` and its first
//!   component.
//! * A directory takes no page. Files, directories and links each take an inode.

use crate::model::limits::{DEPTH, PAGE};
use crate::platform::mount::TmpfsOptions;

/// The longest text of a link that takes no page, in bytes.
#[cfg(test)]
const INLINE: usize = 127;

/// Old and new: content, and links, of which the old ones go last.
const GENERATIONS: usize = 2;

/// Root, two generations, and the links to them.
const BOOKKEEPING: usize = 8;

/// The most files that are counted with; the kernel refuses limits that do not fit into its numbers.
const MOST: usize = 1 << 30;

/// The tmpfs of a volume whose content may have `limit` bytes, each file counted in whole pages of 4 KiB.
pub(super) fn options(limit: usize) -> TmpfsOptions {
    let files = limit.div_ceil(PAGE).min(MOST);
    // Where pages are larger, this many files of one page each are the worst.
    let (content, links) = (files, files);
    // A file, the directories above it, and its link.
    let inodes = files * (DEPTH + 1);
    TmpfsOptions { pages: GENERATIONS * (content + links) + BOOKKEEPING, inodes: GENERATIONS * inodes + BOOKKEEPING }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::{COMPONENT, PAYLOAD};

    /// Pages of a set of files, each with its first component and its size, and of their links.
    fn pages(files: &[(usize, usize)], page: usize) -> usize {
        let link = |name: usize| usize::from("..data/".len() + name > INLINE);
        files.iter().map(|(name, bytes)| bytes.div_ceil(page) + link(*name)).sum()
    }

    #[test]
    fn two_of_the_largest_contents_fit() {
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
        // 4 MiB of content and 1,024 links, twice.
        assert_eq!(options(PAYLOAD).pages, 4096 + 8);
        assert_eq!(options(PAYLOAD).inodes, 2 * 1024 * 17 + 8);
    }

    #[test]
    fn a_limit_beyond_measure_is_one_that_a_kernel_takes() {
        let TmpfsOptions { pages, inodes } = options(usize::MAX);
        assert!(pages < 1 << 33 && inodes < 1 << 37);
        assert!(options(0).pages > 0 && options(1).inodes > 0);
    }
}
