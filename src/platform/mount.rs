//! Mounting tmpfs: filled before it becomes visible where the kernel can, else mounted and then filled.
//!
//! Every call is a system call, never a program; descriptors rather than paths name what is mounted on.
//! `volume::tmpfs` decides what to do with the answers.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, unmount,
};

/// `f_type` of a tmpfs (`linux/magic.h`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The name that stands in the first column of the mount table.
const SOURCE: &str = "tmpfs";

/// The flags of a volume's mount.
const FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID).union(MountFlags::NOEXEC);

/// How a volume's tmpfs is made (docs/decisions.md#d13).
///
/// It is always mounted `nodev,nosuid,noexec` with a root of mode 0755, and `noswap` where the kernel knows that
/// (6.4 and newer, outside of user namespaces).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// The most that files and long links may take, in pages of the kernel. Not in bytes, since pages have 64 KiB on
    /// some nodes.
    pub pages: usize,
    /// The most files, directories and links. The kernel's own default depends on the node's memory.
    pub inodes: usize,
}

/// Whether the kernel may write the content of a tmpfs to the node's swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// `noswap` keeps it in memory.
    Never,
    /// The kernel does not know `noswap`, or may not use it here.
    Possible,
}

/// What a directory entry is, as far as mounting on it goes.
#[derive(Debug)]
pub enum Entry {
    /// There is no such entry.
    Absent,
    /// A directory on which nothing is mounted.
    Directory(OwnedFd),
    /// A tmpfs is mounted here; the descriptor is its root.
    Tmpfs(OwnedFd),
    /// Something else is mounted here.
    OtherMount,
    /// The entry is not a directory (a symbolic link counts as itself).
    NotDirectory,
}

/// A tmpfs that no path leads to yet. Dropping it gives it back to the kernel with everything in it.
#[derive(Debug)]
pub struct DetachedTmpfs {
    root: OwnedFd,
    swap: Swap,
}

impl DetachedTmpfs {
    /// Makes a tmpfs through the mount API of Linux 5.2.
    ///
    /// Returns `None` where the kernel or a system-call filter does not have that API.
    ///
    /// # Errors
    /// What the kernel refuses, by call.
    pub fn new(options: TmpfsOptions) -> io::Result<Option<DetachedTmpfs>> {
        match create(options, Swap::Never) {
            // Kernels before 6.4 do not know noswap, and user namespaces may not use it: EINVAL in both cases. The
            // context is spoilt by that, so a fresh one is made.
            Err(Errno::INVAL) => create(options, Swap::Possible),
            other => other,
        }
        .map(Some)
        .or_else(|error| match error {
            // Filters answer either; if mounting is forbidden altogether, mount(2) will say so.
            Errno::NOSYS | Errno::PERM => Ok(None),
            other => Err(other.into()),
        })
    }

    /// The root directory, for filling it.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether its content may get into swap.
    pub fn swap(&self) -> Swap {
        self.swap
    }

    /// Makes the tmpfs visible on `target`, a directory.
    ///
    /// Returns the root's descriptor, which from now on keeps nothing alive that an unmount would not detach.
    ///
    /// # Errors
    /// `ENOENT` when the directory was removed meanwhile; else what the kernel says. Nothing is mounted then.
    pub fn attach(self, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.root, "", target, "", flags)?;
        Ok(self.root)
    }
}

fn create(options: TmpfsOptions, swap: Swap) -> rustix::io::Result<DetachedTmpfs> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", SOURCE)?;
    fsconfig_set_string(&context, "nr_blocks", options.pages.to_string())?;
    fsconfig_set_string(&context, "nr_inodes", options.inodes.to_string())?;
    fsconfig_set_string(&context, "mode", "0755")?;
    if swap == Swap::Never {
        fsconfig_set_flag(&context, "noswap")?;
    }
    fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(DetachedTmpfs { root, swap })
}

/// Mounts an empty tmpfs on `target`, a directory, with mount(2): for kernels without the newer API.
///
/// # Errors
/// What the kernel says; nothing is mounted then.
pub fn mount_tmpfs(target: BorrowedFd<'_>, options: TmpfsOptions) -> io::Result<Swap> {
    // The descriptor's own path names exactly this directory, whatever happens to the names above it.
    let path = descriptor_path(target);
    let TmpfsOptions { pages, inodes } = options;
    let data = |extra: &str| CString::new(format!("nr_blocks={pages},nr_inodes={inodes},mode=0755{extra}"));
    match rustix::mount::mount(SOURCE, &path, "tmpfs", FLAGS, data(",noswap")?.as_c_str()) {
        Err(Errno::INVAL) => {
            rustix::mount::mount(SOURCE, &path, "tmpfs", FLAGS, data("")?.as_c_str())?;
            Ok(Swap::Possible)
        }
        other => Ok(other.map(|()| Swap::Never)?),
    }
}

/// Lets the tmpfs whose root is `root` grow to these limits; limits that are higher already, or none, stay.
///
/// A driver before this one may have made it, with room for less.
///
/// # Errors
/// What the kernel says; the old limits hold then.
pub fn enlarge(root: BorrowedFd<'_>, options: TmpfsOptions) -> io::Result<()> {
    let has = rustix::fs::fstatfs(root)?;
    // 0 is no limit, and the kernel refuses to set one afterwards.
    let missing =
        |name, has: u64, wanted: usize| (has != 0 && has < wanted as u64).then_some((name, wanted.to_string()));
    let wanted = [missing("nr_blocks", has.f_blocks, options.pages), missing("nr_inodes", has.f_files, options.inodes)];
    let wanted: Vec<(&str, String)> = wanted.into_iter().flatten().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let reconfigure = || -> rustix::io::Result<()> {
        let context = fspick(root, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        wanted.iter().try_for_each(|(name, value)| fsconfig_set_string(&context, *name, value))?;
        fsconfig_reconfigure(&context)
    };
    match reconfigure() {
        Err(Errno::NOSYS | Errno::PERM) => {
            let data = wanted.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
            Ok(rustix::mount::mount_remount(descriptor_path(root), FLAGS, CString::new(data)?.as_c_str())?)
        }
        other => Ok(other?),
    }
}

/// Whether the node has swap that is in use, as far as the process can see.
pub fn has_swap() -> bool {
    // A header, and a line for each device or file.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

/// Opens a directory as a place to look things up in, following links.
///
/// # Errors
/// `NotFound` when it is not there, `NotADirectory` when it is something else.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the directory that these components lead to from the directory `root`, whose own path may hold links, while no component may be
/// one.
///
/// Each component is opened from the descriptor of the one before it, so that none can be replaced on the way. openat2(2) with
/// RESOLVE_NO_SYMLINKS does the same, but neither Linux before 5.6 nor older system-call filters know it.
///
/// # Errors
/// One that [`is_link`] tells; `NotFound` when something is not there, `NotADirectory` when it is something else.
pub fn open_below(root: &Path, components: &[&str]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = open_directory(root)?;
    for component in components {
        directory = match rustix::fs::openat(&directory, *component, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOTDIR) if super::dir::read_link(directory.as_fd(), component)?.is_some() => {
                return Err(Errno::LOOP.into());
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(directory)
}

/// Whether a path was not followed since a component is a link.
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Looks at the entry `name` of the directory `parent`, never following a link.
///
/// # Errors
/// What the kernel says other than "no such entry".
pub fn inspect(parent: BorrowedFd<'_>, name: &str) -> io::Result<Entry> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entry = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(entry) => entry,
        Err(Errno::NOENT) => return Ok(Entry::Absent),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Entry::NotDirectory),
        Err(error) => return Err(error.into()),
    };
    if !is_mount_root(parent, entry.as_fd())? {
        return Ok(Entry::Directory(entry));
    }
    if rustix::fs::fstatfs(&entry)?.f_type as u64 == TMPFS_MAGIC {
        Ok(Entry::Tmpfs(entry))
    } else {
        Ok(Entry::OtherMount)
    }
}

/// Whether the two descriptors are of the same directory, on the same mount of the same file system.
///
/// # Errors
/// What the kernel says.
pub fn same_mount(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(whereabouts(a)? == whereabouts(b)?)
}

/// Whether the two descriptors lie on one file system; a mount in between makes a difference, a bind mount too.
///
/// # Errors
/// What the kernel says.
pub fn same_file_system(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let ((a, _), (b, _)) = (whereabouts(a)?, whereabouts(b)?);
    Ok(a == b)
}

/// The mount and the device that a descriptor lies on, and its inode there.
fn whereabouts(fd: BorrowedFd<'_>) -> io::Result<((u64, u32, u32), u64)> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::INO)?;
    let knows = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    let mount = if knows { stat.stx_mnt_id } else { mount_id_of_old_kernel(fd)? };
    Ok(((mount, stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino))
}

/// The number of a descriptor's mount before Linux 5.8, which does not know STATX_MNT_ID: the line `mnt_id:` of proc(5)'s fdinfo.
pub(super) fn mount_id_of_old_kernel(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line.and_then(|id| id.trim().parse().ok()).ok_or_else(|| io::Error::other("/proc/self/fdinfo names no mount"))
}

fn is_mount_root(parent: BorrowedFd<'_>, entry: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = |fd| rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let at = stat(entry)?;
    if at.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(at.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Before Linux 5.8 the mount's number tells, also of a bind mount within one file system.
    Ok(!same_file_system(parent, entry)?)
}

/// Unmounts what is mounted on the entry `name` of the directory `parent`, never following a link.
///
/// A busy mount is detached: it vanishes from the tree at once and is freed with its last user. Nothing of the mount is asked, so
/// that one whose server is gone can be taken off, too.
///
/// # Errors
/// `EINVAL` when nothing is mounted there; else what the kernel says.
pub fn unmount_at(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // The descriptor's own path leads to exactly this directory, whatever happens to the names above it.
    let path = format!("{}/{name}", descriptor_path(parent));
    match unmount(&path, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => Ok(unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?),
        other => Ok(other?),
    }
}

/// Detaches the mount whose root is `root`, wherever it hangs by now.
///
/// # Errors
/// What the kernel says.
pub fn detach(root: BorrowedFd<'_>) -> io::Result<()> {
    Ok(unmount(descriptor_path(root), UnmountFlags::DETACH)?)
}

/// Whether this is what a mount answers whose server or daemon is gone
/// (docs/reference/csi-driver.md#unpublish-checks).
pub fn is_dead(error: &io::Error) -> bool {
    let dead = [Errno::NOTCONN, Errno::STALE, Errno::IO, Errno::ACCESS, Errno::HOSTDOWN];
    error.raw_os_error().is_some_and(|code| dead.iter().any(|dead| dead.raw_os_error() == code))
}

fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
