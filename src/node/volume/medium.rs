//! A target directory and the tmpfs on it: what is there, fill it, clear it away.
//!
//! Blocks, so it runs on a thread that may; takes no locks and fetches nothing. Every write goes through a descriptor
//! that was just proven to be the root of a tmpfs mounted on the target, never through a path
//! (docs/decisions.md#d9).
//!
//! # Guarantees
//! [`fill`] leaves a whole volume, or on any error no mount and no content. [`clear`] may be called any number of times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

use tracing::{debug, warn};

use super::error::{Error, MountFailure};
use super::layout::{self, Group};
use super::site::{Place, Site, failure};
use super::size::options;
use super::target::TargetPath;
use super::writer::{self, Written};
use crate::model::{FileName, Payload, SecretBytes};
use crate::platform::dir;
use crate::platform::mount::{self, DetachedTmpfs, Entry, Swap};
use crate::platform::mount_id;

/// The mode of a target directory that we make; upstream's
/// (docs/reference/csi-driver.md#target-directory).
const TARGET_MODE: u32 = 0o750;

/// How many mounts are taken off one target. A driver that mounted anew at every call left stacks of them.
const MOST_MOUNTS: usize = 64;

/// What stands on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A published volume with everything in place.
    Whole,
    /// A published volume whose last write was cut off after readers had changed over.
    Torn,
    /// A tmpfs in which nothing was published yet.
    Unfilled,
    /// No mount: nothing, or a bare directory of the host.
    Unmounted,
    /// A published volume that is not below the kubelet's root: it is not ours to change.
    Outside,
}

/// What a [`clear`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleared {
    /// Nothing is left on the target.
    Gone,
    /// The target is not below the kubelet's root; a tmpfs that another kubelet's root had there was taken off.
    TakenOff,
    /// The target is not below the kubelet's root, and was not touched.
    LeftAlone,
}

/// Looks at a target without changing it.
///
/// # Errors
/// A target that is not a directory or carries a foreign mount, one outside of the kubelet's root on which no volume is published, and
/// what the kernel says.
pub(super) fn state(site: &Site) -> Result<State, Error> {
    let target = &site.target;
    let place = match site.open() {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(State::Unmounted),
        Err(Error::OutsideRoot { .. }) if is_published_outside(site) => return Ok(State::Outside),
        Err(error) => return Err(error),
    };
    match place.inspect()? {
        Entry::Absent | Entry::Directory(_) => Ok(State::Unmounted),
        Entry::OtherMount => Err(Error::ForeignMount { target: target.to_string() }),
        Entry::NotDirectory => Err(Error::NotADirectory { target: target.to_string() }),
        Entry::Tmpfs(root) => volume_state(target, root.as_fd()),
    }
}

/// Whether a volume is published on a target that is not ours. What cannot be looked at is not.
fn is_published_outside(site: &Site) -> bool {
    let Ok(Some(place)) = site.open_anywhere() else { return false };
    let Ok(Entry::Tmpfs(root)) = place.inspect() else { return false };
    matches!(volume_state(&site.target, root.as_fd()), Ok(State::Whole | State::Torn))
}

fn volume_state(target: &TargetPath, root: BorrowedFd<'_>) -> Result<State, Error> {
    let found = writer::read_root(root).map_err(failure(target, MountFailure::Look))?;
    Ok(if found.is_legacy() {
        State::Whole
    } else if found.generation().is_none() {
        State::Unfilled
    } else if layout::repair(&found).is_empty() {
        State::Whole
    } else {
        State::Torn
    })
}

/// Brings a torn volume into order without new content; says whether a whole volume is there now.
///
/// Looks anew: since the volume was found torn, it may have been unpublished.
///
/// # Errors
/// What the kernel says; the volume stays mounted.
pub(super) fn mend(site: &Site) -> Result<bool, Error> {
    let target = &site.target;
    let Some(place) = site.open()? else {
        return Ok(false);
    };
    let Entry::Tmpfs(root) = place.inspect()? else {
        return Ok(false);
    };
    let found = writer::read_root(root.as_fd()).map_err(failure(target, MountFailure::Look))?;
    writer::repair(root.as_fd(), &found).map_err(|source| Error::Write { target: target.to_string(), source })?;
    Ok(volume_state(target, root.as_fd())? == State::Whole)
}

/// Makes a published volume hold `payload`; `None`, and nothing written, when none is published on the target.
///
/// # Errors
/// A target that cannot be looked at, and what the kernel says; readers see the old content then.
pub(super) fn refill(site: &Site, payload: &Payload, group: Option<Group>) -> Result<Option<Written>, Error> {
    let target = &site.target;
    let Some(place) = site.open()? else {
        return Ok(None);
    };
    // Without a mount this would be a directory of the host, on its disk (docs/decisions.md#d9).
    let Entry::Tmpfs(root) = place.inspect()? else {
        return Ok(None);
    };
    if volume_state(target, root.as_fd())? == State::Unfilled {
        return Ok(None);
    }
    make_room(root.as_fd(), payload);
    let written = writer::write(root.as_fd(), payload, group);
    written.map(Some).map_err(|source| Error::Write { target: target.to_string(), source })
}

/// Reads files of a published volume; `None` when none is published on the target, or it lacks one of them.
///
/// # Errors
/// A target that cannot be looked at, and what the kernel says.
pub(super) fn read(target: &TargetPath, names: &[FileName]) -> Result<Option<Vec<SecretBytes>>, Error> {
    // Only looked at, and the caller checks what was read: it need not be ours.
    let site = Site::new(target.clone(), None);
    let Some(place) = site.open()? else {
        return Ok(None);
    };
    let Entry::Tmpfs(root) = place.inspect()? else {
        return Ok(None);
    };
    writer::read_files(root.as_fd(), names).map_err(failure(target, MountFailure::Look))
}

/// Mounts a tmpfs on the target and fills it, or fills the one that was left unfilled.
///
/// A whole or torn volume is left as it is, and false says so. Only the last component of the target is made, never the directories
/// above it: a kubelet that has given up removes them, and nobody would ever unmount what lies in a tree made anew
/// (docs/reference/kubelet.md#deletion).
///
/// # Errors
/// [`Error`]; nothing stays mounted then, and a directory that was made is removed.
pub(super) fn fill(site: &Site, payload: &Payload, group: Option<Group>) -> Result<bool, Error> {
    let target = &site.target;
    let place = site.open()?.ok_or_else(|| Error::ParentGone { target: target.to_string() })?;
    match place.inspect()? {
        Entry::OtherMount => Err(Error::ForeignMount { target: target.to_string() }),
        Entry::NotDirectory => Err(Error::NotADirectory { target: target.to_string() }),
        Entry::Tmpfs(root) => match volume_state(target, root.as_fd())? {
            State::Whole => Ok(false),
            State::Torn => mend(site).map(|_| false),
            State::Unfilled | State::Unmounted | State::Outside => {
                fill_mounted(site, Shown::new(root), payload, group).map(|()| true)
            }
        },
        Entry::Absent => {
            let made = dir::make(place.parent.as_fd(), target.name(), TARGET_MODE);
            made.map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    Error::ParentGone { target: target.to_string() }
                } else {
                    failure(target, MountFailure::MakeDirectory)(source)
                }
            })?;
            mount_and_fill(site, &place, payload, group).map(|()| true)
        }
        Entry::Directory(_) => mount_and_fill(site, &place, payload, group).map(|()| true),
    }
    .inspect_err(|_| {
        // Only an empty directory goes; the kubelet removes what is left, since nothing is mounted there.
        let _ = dir::remove_empty(place.parent.as_fd(), target.name());
    })
}

fn mount_and_fill(site: &Site, place: &Place<'_>, payload: &Payload, group: Option<Group>) -> Result<(), Error> {
    let Entry::Directory(directory) = place.inspect()? else {
        return Err(Error::NotADirectory { target: place.target.to_string() });
    };
    let mount_failed = |source| failure(place.target, MountFailure::Mount)(source);
    match DetachedTmpfs::new(options(payload.limit())).map_err(mount_failed)? {
        Some(tmpfs) => {
            warn_of(tmpfs.swap());
            write(place.target, tmpfs.root(), payload, group)?;
            let shown = Shown::new(tmpfs.attach(directory.as_fd()).map_err(mount_failed)?);
            confirm(site, shown)
        }
        None => {
            warn_of(mount::mount_tmpfs(directory.as_fd(), options(payload.limit())).map_err(mount_failed)?);
            match place.inspect() {
                Ok(Entry::Tmpfs(root)) => fill_mounted(site, Shown::new(root), payload, group),
                other => {
                    // The new mount cannot be got hold of, so that only its name is left to take it off by.
                    let _ = place.unmount();
                    other.and(Err(Error::ParentGone { target: place.target.to_string() }))
                }
            }
        }
    }
}

/// A mount that others may see already, and that must not stay unless everything goes well.
struct Shown {
    root: Option<OwnedFd>,
}

impl Shown {
    fn new(root: OwnedFd) -> Shown {
        Shown { root: Some(root) }
    }

    fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }

    /// Everything went well: the mount stays.
    fn keep(mut self) {
        self.root = None;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(root) = self.root.take() {
            // Content first: a reader elsewhere may keep the mount itself alive.
            let _ = dir::clear(root.as_fd());
            let _ = mount::detach(root.as_fd());
        }
    }
}

/// Fills a tmpfs that is mounted already; takes it away again when that fails.
fn fill_mounted(site: &Site, shown: Shown, payload: &Payload, group: Option<Group>) -> Result<(), Error> {
    if let Some(root) = shown.root() {
        make_room(root, payload);
        write(&site.target, root, payload, group)?;
    }
    confirm(site, shown)
}

/// Enlarges a tmpfs that was made for less. Where that fails the write may still fit.
fn make_room(root: BorrowedFd<'_>, payload: &Payload) {
    if let Err(error) = mount::enlarge(root, options(payload.limit())) {
        debug!(err = %error, "a volume's tmpfs cannot be enlarged");
    }
}

/// Says once that secrets may get into swap.
fn warn_of(swap: Swap) {
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

/// Looks again, from the root directory down, whether the target leads to the new mount; takes it away if not.
///
/// A kubelet 1.20 may have removed the pod's whole tree while we mounted
/// (docs/reference/kubelet.md#deletion).
fn confirm(site: &Site, shown: Shown) -> Result<(), Error> {
    let target = &site.target;
    let gone = || Error::ParentGone { target: target.to_string() };
    let place = site.open()?.ok_or_else(gone)?;
    let (Entry::Tmpfs(seen), Some(root)) = (place.inspect()?, shown.root()) else {
        return Err(gone());
    };
    if !mount_id::same_directory(seen.as_fd(), root).map_err(failure(target, MountFailure::Look))? {
        return Err(gone());
    }
    shown.keep();
    Ok(())
}

/// Takes everything away: content, mounts, the directory itself. Absent is fine, at any level. Nothing is entered on which something
/// else is mounted. A target outside of the kubelet's root keeps what it has, but for another kubelet's tmpfs.
///
/// # Errors
/// What the kernel says; as much as possible is gone then, the secrets first.
pub(super) fn clear(site: &Site) -> Result<Cleared, Error> {
    let place = match site.open() {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(Cleared::Gone),
        Err(Error::OutsideRoot { .. }) => return take_off(site),
        Err(error) => return Err(error),
    };
    let (parent, name) = (place.parent.as_fd(), site.target.name());
    let failed = |source| failure(&site.target, MountFailure::Unmount)(source);
    for _ in 0..MOST_MOUNTS {
        let entry = match mount::inspect(parent, name) {
            Err(error) if mount::is_dead(&error) => Entry::OtherMount,
            other => other.map_err(failed)?,
        };
        match entry {
            Entry::Absent => return Ok(Cleared::Gone),
            Entry::Tmpfs(root) => {
                // Another mount namespace may keep this mount alive; the files must not live on with it. The link goes
                // first: a volume of which only a part is left must not be taken for a published one.
                let cleared = dir::remove(root.as_fd(), layout::DATA).and_then(|()| dir::clear(root.as_fd()));
                drop(root);
                place.unmount()?;
                cleared.map_err(failed)?;
            }
            // Not ours, and its content may be precious: it is only taken off.
            Entry::OtherMount => place.unmount()?,
            Entry::NotDirectory if site.refuses_links() && dir::read_link(parent, name).map_err(failed)?.is_some() => {
                return Ok(Cleared::LeftAlone);
            }
            Entry::Directory(_) | Entry::NotDirectory => {
                return dir::remove(parent, name).map(|()| Cleared::Gone).map_err(failed);
            }
        }
    }
    Err(failed(too_many()))
}

/// Takes off what a kubelet with another root had mounted, so that its pod can go; content and directory are not ours.
fn take_off(site: &Site) -> Result<Cleared, Error> {
    let Some(place) = site.open_under_another_root() else { return Ok(Cleared::LeftAlone) };
    let failed = |source| failure(&site.target, MountFailure::Unmount)(source);
    let mut cleared = Cleared::LeftAlone;
    for _ in 0..MOST_MOUNTS {
        // By descriptor, so that it is the tmpfs that was looked at.
        let Ok(Entry::Tmpfs(root)) = place.inspect() else { return Ok(cleared) };
        mount::detach(root.as_fd()).map_err(failed)?;
        cleared = Cleared::TakenOff;
    }
    Err(failed(too_many()))
}

fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "more than 64 mounts lie upon each other")
}
