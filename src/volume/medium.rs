//! A target directory and the tmpfs on it: what is there, fill it, clear it away.
//!
//! Blocks, so it runs on a thread that may; takes no locks and fetches nothing. Every write goes through a descriptor
//! that was just proven to be the root of a tmpfs mounted on the target, never through a path (design decision 9).
//!
//! # Guarantees
//! [`fill`] leaves a whole volume, or on any error no mount and no content. [`clear`] may be called any number of times.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

use tracing::{debug, warn};

use super::error::{Error, MountFailure};
use super::layout::{self, Group};
use super::size::options;
use super::target::TargetPath;
use super::writer::{self, Written};
use crate::model::Payload;
use crate::platform::dir;
use crate::platform::mount::{self, DetachedTmpfs, Entry, Swap};

/// The mode of a target directory that we make; upstream's (spec/driver.md §2.5 step 3).
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
}

/// The directory above a target, held open.
struct Place<'a> {
    target: &'a TargetPath,
    parent: OwnedFd,
}

impl<'a> Place<'a> {
    /// `None` when the directory above the target is not there.
    fn open(target: &'a TargetPath) -> Result<Option<Place<'a>>, Error> {
        match mount::open_directory(&target.parent()) {
            Ok(parent) => Ok(Some(Place { target, parent })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(failure(target, MountFailure::Look)(error)),
        }
    }

    fn inspect(&self) -> Result<Entry, Error> {
        mount::inspect(self.parent.as_fd(), self.target.name()).map_err(failure(self.target, MountFailure::Look))
    }
}

fn failure(target: &TargetPath, what: MountFailure) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Mount { what, target: target.to_string(), source }
}

/// Looks at a target without changing it.
///
/// # Errors
/// A target that is not a directory or carries a foreign mount, and what the kernel says.
pub(super) fn state(target: &TargetPath) -> Result<State, Error> {
    let Some(place) = Place::open(target)? else {
        return Ok(State::Unmounted);
    };
    match place.inspect()? {
        Entry::Absent | Entry::Directory(_) => Ok(State::Unmounted),
        Entry::OtherMount => Err(Error::ForeignMount { target: target.to_string() }),
        Entry::NotDirectory => Err(Error::NotADirectory { target: target.to_string() }),
        Entry::Tmpfs(root) => volume_state(target, root.as_fd()),
    }
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
pub(super) fn mend(target: &TargetPath) -> Result<bool, Error> {
    let Some(place) = Place::open(target)? else {
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
pub(super) fn refill(target: &TargetPath, payload: &Payload, group: Option<Group>) -> Result<Option<Written>, Error> {
    let Some(place) = Place::open(target)? else {
        return Ok(None);
    };
    // Without a mount this would be a directory of the host, on its disk (design decision 9).
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

/// Mounts a tmpfs on the target and fills it, or fills the one that was left unfilled.
///
/// A whole or torn volume is left as it is, and false says so. Only the last component of the target is made, never the directories
/// above it: a kubelet that has given up removes them, and nobody would ever unmount what lies in a tree made anew
/// (spec/kubelet.md §8).
///
/// # Errors
/// [`Error`]; nothing stays mounted then, and a directory that was made is removed.
pub(super) fn fill(target: &TargetPath, payload: &Payload, group: Option<Group>) -> Result<bool, Error> {
    let place = Place::open(target)?.ok_or_else(|| Error::ParentGone { target: target.to_string() })?;
    match place.inspect()? {
        Entry::OtherMount => Err(Error::ForeignMount { target: target.to_string() }),
        Entry::NotDirectory => Err(Error::NotADirectory { target: target.to_string() }),
        Entry::Tmpfs(root) => match volume_state(target, root.as_fd())? {
            State::Whole => Ok(false),
            State::Torn => mend(target).map(|_| false),
            State::Unfilled | State::Unmounted => fill_mounted(&place, Shown::new(root), payload, group).map(|()| true),
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
            mount_and_fill(&place, payload, group).map(|()| true)
        }
        Entry::Directory(_) => mount_and_fill(&place, payload, group).map(|()| true),
    }
    .inspect_err(|_| {
        // Only an empty directory goes; the kubelet removes what is left, since nothing is mounted there.
        let _ = dir::remove_empty(place.parent.as_fd(), target.name());
    })
}

fn mount_and_fill(place: &Place<'_>, payload: &Payload, group: Option<Group>) -> Result<(), Error> {
    let Entry::Directory(directory) = place.inspect()? else {
        return Err(Error::NotADirectory { target: place.target.to_string() });
    };
    let mount_failed = |source| failure(place.target, MountFailure::Mount)(source);
    match DetachedTmpfs::new(options(payload.limit())).map_err(mount_failed)? {
        Some(tmpfs) => {
            warn_of(tmpfs.swap());
            write(place.target, tmpfs.root(), payload, group)?;
            let shown = Shown::new(tmpfs.attach(directory.as_fd()).map_err(mount_failed)?);
            confirm(place.target, shown)
        }
        None => {
            warn_of(mount::mount_tmpfs(directory.as_fd(), options(payload.limit())).map_err(mount_failed)?);
            match place.inspect() {
                Ok(Entry::Tmpfs(root)) => fill_mounted(place, Shown::new(root), payload, group),
                other => {
                    // The new mount cannot be got hold of, so that only its path is left to take it off by.
                    let _ = mount::unmount_path(place.target.as_path());
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
fn fill_mounted(place: &Place<'_>, shown: Shown, payload: &Payload, group: Option<Group>) -> Result<(), Error> {
    if let Some(root) = shown.root() {
        make_room(root, payload);
        write(place.target, root, payload, group)?;
    }
    confirm(place.target, shown)
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
/// A kubelet 1.20 may have removed the pod's whole tree while we mounted (spec/kubelet.md §8).
fn confirm(target: &TargetPath, shown: Shown) -> Result<(), Error> {
    let gone = || Error::ParentGone { target: target.to_string() };
    let place = Place::open(target)?.ok_or_else(gone)?;
    let (Entry::Tmpfs(seen), Some(root)) = (place.inspect()?, shown.root()) else {
        return Err(gone());
    };
    if !mount::same_mount(seen.as_fd(), root).map_err(failure(target, MountFailure::Look))? {
        return Err(gone());
    }
    shown.keep();
    Ok(())
}

/// Takes everything away: content, mounts, the directory itself. Absent is fine, at any level.
///
/// # Errors
/// What the kernel says; as much as possible is gone then, the secrets first.
pub(super) fn clear(target: &TargetPath) -> Result<(), Error> {
    let Some(place) = Place::open(target)? else {
        return Ok(());
    };
    let failed = |source| failure(target, MountFailure::Unmount)(source);
    for _ in 0..MOST_MOUNTS {
        let entry = match mount::inspect(place.parent.as_fd(), target.name()) {
            Err(error) if mount::is_dead(&error) => Entry::OtherMount,
            other => other.map_err(failed)?,
        };
        match entry {
            Entry::Absent => return Ok(()),
            Entry::Tmpfs(root) => {
                // Another mount namespace may keep this mount alive; the files must not live on with it. The link goes
                // first: a volume of which only a part is left must not be taken for a published one.
                let cleared = dir::remove(root.as_fd(), layout::DATA).and_then(|()| dir::clear(root.as_fd()));
                drop(root);
                mount::unmount_path(target.as_path()).map_err(failed)?;
                cleared.map_err(failed)?;
            }
            // Not ours, and its content may be precious: it is only taken off.
            Entry::OtherMount => mount::unmount_path(target.as_path()).map_err(failed)?,
            Entry::Directory(_) | Entry::NotDirectory => {
                return dir::remove(place.parent.as_fd(), target.name()).map_err(failed);
            }
        }
    }
    Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, "more than 64 mounts lie upon each other")))
}
