//! The tmpfs on a target: find its state, mount and fill it, refill it, remove it.
//!
//! Blocks, so it runs on threads for blocking work. Takes no locks and fetches nothing. Every write
//! goes through a descriptor that was just proven to be the root of a tmpfs mounted on the target,
//! never through a path (docs/decisions.md#d9).
//!
//! # Guarantees
//! [`fill`] leaves a complete volume, or after any error nothing. [`clear`] is idempotent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

use tracing::{debug, warn};

use super::error::{Error, MountFailure};
use super::layout::{self, Group};
use super::mount_point::{MountPoint, OpenMountPoint, failure};
use super::size::options;
use super::target::TargetPath;
use super::writer::{self, Written};
use crate::model::{FileName, Payload, SecretBytes};
use crate::platform::dir;
use crate::platform::mount::{self, DetachedTmpfs, Entry, Swap};
use crate::platform::mount_id;

/// The mode of a target directory that the driver makes, as upstream's
/// (docs/reference/csi-driver.md#target-directory).
const TARGET_MODE: u32 = 0o750;

/// How many mounts are removed from one target: some drivers mount again at every call.
const MAX_MOUNTS: usize = 64;

/// What is on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A published volume with all files and links.
    Complete,
    /// A published volume whose last write was interrupted after the switch of `..data`.
    Interrupted,
    /// A tmpfs without a published volume.
    Unfilled,
    /// No mount: nothing, or a directory of the host.
    Unmounted,
    /// A published volume that is not below the kubelet's root; the driver must not change it.
    Outside,
}

/// What [`clear`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleared {
    /// Nothing is left on the target.
    Removed,
    /// The target is not below the kubelet's root; the tmpfs of another kubelet was unmounted.
    Unmounted,
    /// The target is not below the kubelet's root; nothing was changed.
    Untouched,
}

/// Finds the state of a target; changes nothing.
///
/// # Errors
/// A target that is not a directory or has a mount that is not a tmpfs; one outside of the
/// kubelet's root without a published volume; errors of the kernel.
pub(super) fn state(mount_point: &MountPoint) -> Result<State, Error> {
    let target = &mount_point.target;
    let open = match mount_point.open() {
        Ok(Some(open)) => open,
        Ok(None) => return Ok(State::Unmounted),
        Err(Error::OutsideRoot { .. }) if is_published_outside(mount_point) => return Ok(State::Outside),
        Err(error) => return Err(error),
    };
    match open.inspect()? {
        Entry::Absent | Entry::Directory(_) => Ok(State::Unmounted),
        Entry::OtherMount => Err(Error::ForeignMount { target: target.to_string() }),
        Entry::NotDirectory => Err(Error::NotADirectory { target: target.to_string() }),
        Entry::Tmpfs(root) => volume_state(target, root.as_fd()),
    }
}

/// Whether a volume is published on a target outside of the root; false if that is unknown.
fn is_published_outside(mount_point: &MountPoint) -> bool {
    let Ok(Some(open)) = mount_point.open_anywhere() else { return false };
    let Ok(Entry::Tmpfs(root)) = open.inspect() else { return false };
    matches!(volume_state(&mount_point.target, root.as_fd()), Ok(State::Complete | State::Interrupted))
}

fn volume_state(target: &TargetPath, root: BorrowedFd<'_>) -> Result<State, Error> {
    let found = writer::read_root(root).map_err(failure(target, MountFailure::Inspect))?;
    Ok(if found.is_legacy() {
        State::Complete
    } else if found.generation().is_none() {
        State::Unfilled
    } else if layout::repair(&found).is_empty() {
        State::Complete
    } else {
        State::Interrupted
    })
}

/// Repairs an interrupted volume without new content; returns whether a complete volume is
/// published now.
///
/// The state is read again: the volume may have been unpublished since.
///
/// # Errors
/// Errors of the kernel; the volume stays mounted.
pub(super) fn repair(mount_point: &MountPoint) -> Result<bool, Error> {
    let target = &mount_point.target;
    let Some(open) = mount_point.open()? else {
        return Ok(false);
    };
    let Entry::Tmpfs(root) = open.inspect()? else {
        return Ok(false);
    };
    let found = writer::read_root(root.as_fd()).map_err(failure(target, MountFailure::Inspect))?;
    writer::repair(root.as_fd(), &found).map_err(|source| Error::Write { target: target.to_string(), source })?;
    Ok(volume_state(target, root.as_fd())? == State::Complete)
}

/// Makes a published volume hold `payload`; `None`, and no write, if no volume is published.
///
/// # Errors
/// A target that cannot be inspected, and errors of the kernel; readers see the old content then.
pub(super) fn refill(
    mount_point: &MountPoint,
    payload: &Payload,
    group: Option<Group>,
) -> Result<Option<Written>, Error> {
    let target = &mount_point.target;
    let Some(open) = mount_point.open()? else {
        return Ok(None);
    };
    // Without a mount, this would write to a directory on the host's disk (docs/decisions.md#d9).
    let Entry::Tmpfs(root) = open.inspect()? else {
        return Ok(None);
    };
    if volume_state(target, root.as_fd())? == State::Unfilled {
        return Ok(None);
    }
    enlarge(root.as_fd(), payload);
    let written = writer::write(root.as_fd(), payload, group);
    written.map(Some).map_err(|source| Error::Write { target: target.to_string(), source })
}

/// Reads files of a published volume; `None` if no volume is published, or if a file is missing.
///
/// # Errors
/// A target that cannot be inspected, and errors of the kernel.
pub(super) fn read(target: &TargetPath, names: &[FileName]) -> Result<Option<Vec<SecretBytes>>, Error> {
    // Without a root: nothing is changed, and the caller verifies the content.
    let mount_point = MountPoint::new(target.clone(), None);
    let Some(open) = mount_point.open()? else {
        return Ok(None);
    };
    let Entry::Tmpfs(root) = open.inspect()? else {
        return Ok(None);
    };
    writer::read_files(root.as_fd(), names).map_err(failure(target, MountFailure::Inspect))
}

/// Mounts a tmpfs on the target and fills it, or fills an unfilled one.
///
/// Returns false for a volume that is published already, which keeps its content. Makes only the
/// last component of the target: a kubelet that gave up removes the directories above, and would
/// never unmount what is in a tree that was made anew (docs/reference/kubelet.md#deletion).
///
/// # Errors
/// Any error leaves no mount; a directory that was made is removed.
pub(super) fn fill(mount_point: &MountPoint, payload: &Payload, group: Option<Group>) -> Result<bool, Error> {
    let target = &mount_point.target;
    let open = mount_point.open()?.ok_or_else(|| Error::ParentGone { target: target.to_string() })?;
    match open.inspect()? {
        Entry::OtherMount => Err(Error::ForeignMount { target: target.to_string() }),
        Entry::NotDirectory => Err(Error::NotADirectory { target: target.to_string() }),
        Entry::Tmpfs(root) => match volume_state(target, root.as_fd())? {
            State::Complete => Ok(false),
            State::Interrupted => repair(mount_point).map(|_| false),
            State::Unfilled | State::Unmounted | State::Outside => {
                fill_mounted(mount_point, MountGuard::new(root), payload, group).map(|()| true)
            }
        },
        Entry::Absent => {
            let made = dir::make(open.parent.as_fd(), target.name(), TARGET_MODE);
            made.map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    Error::ParentGone { target: target.to_string() }
                } else {
                    failure(target, MountFailure::MakeDirectory)(source)
                }
            })?;
            mount_and_fill(mount_point, &open, payload, group).map(|()| true)
        }
        Entry::Directory(_) => mount_and_fill(mount_point, &open, payload, group).map(|()| true),
    }
    .inspect_err(|_| {
        // Only if empty. The kubelet removes any other directory, since nothing is mounted on it.
        let _ = dir::remove_empty(open.parent.as_fd(), target.name());
    })
}

fn mount_and_fill(
    mount_point: &MountPoint,
    open: &OpenMountPoint<'_>,
    payload: &Payload,
    group: Option<Group>,
) -> Result<(), Error> {
    let Entry::Directory(directory) = open.inspect()? else {
        return Err(Error::NotADirectory { target: open.target.to_string() });
    };
    let mount_failed = |source| failure(open.target, MountFailure::Mount)(source);
    match DetachedTmpfs::new(options(payload.limit())).map_err(mount_failed)? {
        Some(tmpfs) => {
            warn_once_of_swap(tmpfs.swap());
            write(open.target, tmpfs.root(), payload, group)?;
            let guard = MountGuard::new(tmpfs.attach(directory.as_fd()).map_err(mount_failed)?);
            confirm(mount_point, guard)
        }
        None => {
            warn_once_of_swap(mount::mount_tmpfs(directory.as_fd(), options(payload.limit())).map_err(mount_failed)?);
            match open.inspect() {
                Ok(Entry::Tmpfs(root)) => fill_mounted(mount_point, MountGuard::new(root), payload, group),
                other => {
                    // There is no descriptor of the new mount to unmount it by, only its name.
                    let _ = open.unmount();
                    other.and(Err(Error::ParentGone { target: open.target.to_string() }))
                }
            }
        }
    }
}

/// A visible mount that is removed, with its content, unless it is [kept](MountGuard::keep).
struct MountGuard {
    root: Option<OwnedFd>,
}

impl MountGuard {
    fn new(root: OwnedFd) -> MountGuard {
        MountGuard { root: Some(root) }
    }

    fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }

    fn keep(mut self) {
        self.root = None;
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        if let Some(root) = self.root.take() {
            // Content first: a process that holds the mount keeps it alive.
            let _ = dir::clear(root.as_fd());
            let _ = mount::detach(root.as_fd());
        }
    }
}

fn fill_mounted(
    mount_point: &MountPoint,
    guard: MountGuard,
    payload: &Payload,
    group: Option<Group>,
) -> Result<(), Error> {
    if let Some(root) = guard.root() {
        enlarge(root, payload);
        write(&mount_point.target, root, payload, group)?;
    }
    confirm(mount_point, guard)
}

/// Enlarges a tmpfs that was made for a smaller limit. If that fails, the payload may still fit.
fn enlarge(root: BorrowedFd<'_>, payload: &Payload) {
    if let Err(error) = mount::enlarge(root, options(payload.limit())) {
        debug!(err = %error, "a volume's tmpfs cannot be enlarged");
    }
}

fn warn_once_of_swap(swap: Swap) {
    static ONCE: Once = Once::new();
    if swap == Swap::Possible {
        ONCE.call_once(|| {
            let state = if mount::has_swap() { "swap is on" } else { "swap is off at this moment" };
            warn!(
                "volumes may be written to the node's swap, since their tmpfs has no noswap (it needs Linux 6.4, outside \
                 of user namespaces); {state}: turn swap off or encrypt it (docs/security.md, \"Memory and swap\")"
            );
        });
    }
}

fn write(target: &TargetPath, root: BorrowedFd<'_>, payload: &Payload, group: Option<Group>) -> Result<(), Error> {
    match writer::write(root, payload, group) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Write { target: target.to_string(), source }),
    }
}

/// Opens the target again, from the root directory down; removes the mount if the target does not
/// lead to it.
///
/// The pod may have been deleted during the publish, and its whole directory tree removed: no
/// unpublish would follow (docs/reference/kubelet.md#deletion).
fn confirm(mount_point: &MountPoint, guard: MountGuard) -> Result<(), Error> {
    let target = &mount_point.target;
    let gone = || Error::ParentGone { target: target.to_string() };
    let open = mount_point.open()?.ok_or_else(gone)?;
    let (Entry::Tmpfs(seen), Some(root)) = (open.inspect()?, guard.root()) else {
        return Err(gone());
    };
    if !mount_id::same_directory(seen.as_fd(), root).map_err(failure(target, MountFailure::Inspect))? {
        return Err(gone());
    }
    guard.keep();
    Ok(())
}

/// Removes content, mounts and the directory itself. Succeeds if any of them does not exist.
///
/// Never enters a mount that is not a tmpfs. Of a target outside of the kubelet's root, removes
/// only the tmpfs of another kubelet.
///
/// # Errors
/// Errors of the kernel; as much as possible is removed then, the secrets first.
pub(super) fn clear(mount_point: &MountPoint) -> Result<Cleared, Error> {
    let open = match mount_point.open() {
        Ok(Some(open)) => open,
        Ok(None) => return Ok(Cleared::Removed),
        Err(Error::OutsideRoot { .. }) => return unmount_outside(mount_point),
        Err(error) => return Err(error),
    };
    let (parent, name) = (open.parent.as_fd(), mount_point.target.name());
    let failed = |source| failure(&mount_point.target, MountFailure::Unmount)(source);
    for _ in 0..MAX_MOUNTS {
        let entry = match mount::inspect(parent, name) {
            Err(error) if mount::is_dead(&error) => Entry::OtherMount,
            other => other.map_err(failed)?,
        };
        match entry {
            Entry::Absent => return Ok(Cleared::Removed),
            Entry::Tmpfs(root) => {
                // Another mount namespace may keep this mount alive, but not its files. The link
                // goes first: a partly cleared volume must not look like a published one.
                let cleared = dir::remove(root.as_fd(), layout::DATA).and_then(|()| dir::clear(root.as_fd()));
                drop(root);
                open.unmount()?;
                cleared.map_err(failed)?;
            }
            // Its content may be precious, so it is only unmounted.
            Entry::OtherMount => open.unmount()?,
            Entry::NotDirectory
                if mount_point.refuses_links() && dir::read_link(parent, name).map_err(failed)?.is_some() =>
            {
                return Ok(Cleared::Untouched);
            }
            Entry::Directory(_) | Entry::NotDirectory => {
                return dir::remove(parent, name).map(|()| Cleared::Removed).map_err(failed);
            }
        }
    }
    Err(failed(too_many()))
}

/// Unmounts the tmpfs of a kubelet with another root, so that its pod can be deleted; content and
/// directory stay.
fn unmount_outside(mount_point: &MountPoint) -> Result<Cleared, Error> {
    let Some(open) = mount_point.open_under_another_root() else { return Ok(Cleared::Untouched) };
    let failed = |source| failure(&mount_point.target, MountFailure::Unmount)(source);
    let mut cleared = Cleared::Untouched;
    for _ in 0..MAX_MOUNTS {
        // By descriptor: exactly the tmpfs that was inspected.
        let Ok(Entry::Tmpfs(root)) = open.inspect() else { return Ok(cleared) };
        mount::detach(root.as_fd()).map_err(failed)?;
        cleared = Cleared::Unmounted;
    }
    Err(failed(too_many()))
}

fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "more than 64 mounts are stacked on it")
}
