//! Mounts and unmounts tmpfs: detached first and attached when filled, or with mount(2) on kernels
//! before 5.2.
//!
//! Every call is a system call, never a program; descriptors rather than paths name what is mounted
//! on. `volume::tmpfs` decides what to do with the answers.

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

use super::dir;
use super::mount_id::on_same_mount;

/// `f_type` of a tmpfs (`linux/magic.h`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The first column of the mount table.
const SOURCE: &str = "tmpfs";

const FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID).union(MountFlags::NOEXEC);

/// Limits of a volume's tmpfs (docs/decisions.md#d13).
///
/// It is always mounted `nodev,nosuid,noexec` with a root of mode 0755, and `noswap` if the kernel
/// supports that (6.4 and newer, outside of user namespaces).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// For files and long links, in pages of the kernel and not in bytes: some nodes have pages of
    /// 64 KiB.
    pub pages: usize,
    /// Files, directories and links together. The kernel's default depends on the node's memory.
    pub inodes: usize,
}

/// Whether the kernel may write the content of a tmpfs to the node's swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// `noswap` keeps it in memory.
    Never,
    /// The kernel does not support `noswap`, or not in this user namespace.
    Possible,
}

/// A directory entry as a possible mount point.
#[derive(Debug)]
pub enum Entry {
    /// The entry does not exist.
    Absent,
    /// A directory that is not a mount point.
    Directory(OwnedFd),
    /// The mount point of a tmpfs; the descriptor is its root.
    Tmpfs(OwnedFd),
    /// The mount point of another file system.
    OtherMount,
    /// Not a directory; links are not followed.
    NotDirectory,
}

/// A tmpfs that is attached to no path yet. Dropping it frees it with its content.
#[derive(Debug)]
pub struct DetachedTmpfs {
    root: OwnedFd,
    swap: Swap,
}

impl DetachedTmpfs {
    /// Creates a tmpfs with the mount API of Linux 5.2.
    ///
    /// Returns `None` if the kernel does not have that API, or a system-call filter forbids it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new(options: TmpfsOptions) -> io::Result<Option<DetachedTmpfs>> {
        match create(options, Swap::Never) {
            // EINVAL on kernels before 6.4, which do not have noswap, and in user namespaces, which
            // may not use it. The context is unusable afterwards, so this creates another one.
            Err(Errno::INVAL) => create(options, Swap::Possible),
            other => other,
        }
        .map(Some)
        .or_else(|error| match error {
            // Filters return either; if all mounting is forbidden, mount(2) will fail, too.
            Errno::NOSYS | Errno::PERM => Ok(None),
            other => Err(other.into()),
        })
    }

    /// The root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether the kernel may swap out its content.
    pub fn swap(&self) -> Swap {
        self.swap
    }

    /// Attaches the tmpfs to `target`, a directory.
    ///
    /// Returns the root's descriptor; an unmount detaches the tmpfs although the descriptor is
    /// open.
    ///
    /// # Errors
    /// `ENOENT` if the directory was removed meanwhile, or another error of the kernel. Nothing is
    /// mounted then.
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

/// Mounts an empty tmpfs on `target`, a directory, with mount(2), for kernels without the newer
/// API.
///
/// # Errors
/// The kernel's error; nothing is mounted then.
pub fn mount_tmpfs(target: BorrowedFd<'_>, options: TmpfsOptions) -> io::Result<Swap> {
    // The descriptor's path in /proc names exactly this directory, even if its parents are renamed.
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

/// Raises the limits of the tmpfs with this root; higher limits, and no limit, stay.
///
/// An earlier driver may have created it with lower limits.
///
/// # Errors
/// The kernel's error; the limits are unchanged then.
pub fn enlarge(root: BorrowedFd<'_>, options: TmpfsOptions) -> io::Result<()> {
    let stat = rustix::fs::fstatfs(root)?;
    // 0 means unlimited, and the kernel refuses to set a limit afterwards.
    let raised = |name, actual: u64, desired: usize| {
        (actual != 0 && actual < desired as u64).then_some((name, desired.to_string()))
    };
    let raised = [raised("nr_blocks", stat.f_blocks, options.pages), raised("nr_inodes", stat.f_files, options.inodes)];
    let raised: Vec<(&str, String)> = raised.into_iter().flatten().collect();
    if raised.is_empty() {
        return Ok(());
    }
    let reconfigure = || -> rustix::io::Result<()> {
        let context = fspick(root, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        raised.iter().try_for_each(|(name, value)| fsconfig_set_string(&context, *name, value))?;
        fsconfig_reconfigure(&context)
    };
    match reconfigure() {
        Err(Errno::NOSYS | Errno::PERM) => {
            let data = raised.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
            Ok(rustix::mount::mount_remount(descriptor_path(root), FLAGS, CString::new(data)?.as_c_str())?)
        }
        other => Ok(other?),
    }
}

/// Whether the node has active swap, as far as this process can see.
pub fn has_swap() -> bool {
    // The table has a header, and a line for each device or file.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

/// Opens a directory for look-ups (O_PATH), and follows links.
///
/// # Errors
/// `NotFound`, `NotADirectory`, or another error of the kernel.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the directory at these components below `root`. The path of `root` may contain links, but
/// no component may be a link.
///
/// Opens each component relative to the descriptor of the previous one, so that none can be
/// replaced meanwhile. openat2(2) with RESOLVE_NO_SYMLINKS does the same, but Linux before 5.6 and
/// older system-call filters lack it.
///
/// # Errors
/// A component is a link (see [`is_link`]), `NotFound`, `NotADirectory`, or another error of the
/// kernel.
pub fn open_below(root: &Path, components: &[&str]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = open_directory(root)?;
    for component in components {
        directory = match rustix::fs::openat(&directory, *component, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOTDIR) if dir::read_link(directory.as_fd(), component)?.is_some() => {
                return Err(Errno::LOOP.into());
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(directory)
}

/// Whether [`open_below`] failed because a component is a link.
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Classifies the entry `name` of the directory `parent`, and follows no link.
///
/// # Errors
/// The kernel's error, except that the entry does not exist.
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

fn is_mount_root(parent: BorrowedFd<'_>, entry: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = |fd| rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let at = stat(entry)?;
    if at.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(at.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Linux before 5.8 lacks MOUNT_ROOT; mount ids differ even for a bind mount within one file
    // system.
    Ok(!on_same_mount(parent, entry)?)
}

/// Unmounts the entry `name` of the directory `parent`, and follows no link.
///
/// Detaches a busy mount: it disappears from the tree at once, and the kernel frees it after its
/// last use. Accesses nothing in the mount, so that a mount whose server is gone can be removed,
/// too.
///
/// # Errors
/// `EINVAL` if the entry is not a mount point, or another error of the kernel.
pub fn unmount_at(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // The descriptor's path in /proc names exactly this directory, even if its parents are renamed.
    let path = format!("{}/{name}", descriptor_path(parent));
    match unmount(&path, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => Ok(unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?),
        other => Ok(other?),
    }
}

/// Detaches the mount with this root, wherever it is mounted now.
///
/// # Errors
/// The kernel's error.
pub fn detach(root: BorrowedFd<'_>) -> io::Result<()> {
    Ok(unmount(descriptor_path(root), UnmountFlags::DETACH)?)
}

/// Whether this is an error of a mount whose server or daemon is gone
/// (docs/reference/csi-driver.md#unpublish-checks).
pub fn is_dead(error: &io::Error) -> bool {
    let dead = [Errno::NOTCONN, Errno::STALE, Errno::IO, Errno::ACCESS, Errno::HOSTDOWN];
    error.raw_os_error().is_some_and(|code| dead.iter().any(|dead| dead.raw_os_error() == code))
}

fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
