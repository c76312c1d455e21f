//! A target on this node: whether it is ours to change, and the way to it.
//!
//! With the kubelet's root known, only `<root>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount` is ours, and no component below the
//! root may be a symbolic link. The directory above the target is opened once, component by component, and everything is done from that
//! descriptor, so that nothing that is put in place of a component later leads elsewhere. `medium` does what there is to do.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::error::{Error, MountFailure};
use super::target::{KubeletRoot, TargetPath};
use crate::platform::mount::{self, Entry};

/// A target and the root that it has to be below. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) target: TargetPath,
    /// `None`: any target is ours.
    root: Option<Arc<KubeletRoot>>,
}

/// The directory above a target, held open.
pub(super) struct Place<'a> {
    pub(super) target: &'a TargetPath,
    pub(super) parent: OwnedFd,
}

impl Site {
    pub(super) fn new(target: TargetPath, root: Option<Arc<KubeletRoot>>) -> Site {
        Site { target, root }
    }

    /// Opens the directory above a target of ours; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::OutsideRoot`] when the target is not ours, and what the kernel says.
    pub(super) fn open(&self) -> Result<Option<Place<'_>>, Error> {
        let Some(root) = &self.root else { return self.open_anywhere() };
        let volume = self.target.kubelet_volume().filter(|volume| volume.root == root.as_str());
        let volume = volume.ok_or_else(|| self.outside(root))?;
        match mount::open_below(Path::new(volume.root), &volume.below) {
            Err(error) if mount::is_link(&error) => Err(self.outside(root)),
            opened => self.place(opened),
        }
    }

    /// Opens the directory above any target, following links: to look, not to change anything.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open_anywhere(&self) -> Result<Option<Place<'_>>, Error> {
        self.place(mount::open_directory(&self.target.parent()))
    }

    /// Opens the directory above a target that another kubelet's root has; `None` when this is not one, or it is not there.
    pub(super) fn open_under_another_root(&self) -> Option<Place<'_>> {
        let volume = self.target.kubelet_volume()?;
        if self.root.as_ref().is_some_and(|root| root.as_str() == volume.root) {
            return None;
        }
        let parent = mount::open_below(Path::new(volume.root), &volume.below).ok()?;
        Some(Place { target: &self.target, parent })
    }

    /// Whether links are no targets: where the root is known, they lead out of it.
    pub(super) fn refuses_links(&self) -> bool {
        self.root.is_some()
    }

    fn place(&self, opened: io::Result<OwnedFd>) -> Result<Option<Place<'_>>, Error> {
        match opened {
            Ok(parent) => Ok(Some(Place { target: &self.target, parent })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(failure(&self.target, MountFailure::Look)(error)),
        }
    }

    fn outside(&self, root: &KubeletRoot) -> Error {
        Error::OutsideRoot { target: self.target.to_string(), root: root.to_string() }
    }
}

impl Place<'_> {
    /// Looks at the target.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn inspect(&self) -> Result<Entry, Error> {
        mount::inspect(self.parent.as_fd(), self.target.name()).map_err(failure(self.target, MountFailure::Look))
    }

    /// Takes the topmost mount off the target.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn unmount(&self) -> Result<(), Error> {
        mount::unmount_at(self.parent.as_fd(), self.target.name()).map_err(failure(self.target, MountFailure::Unmount))
    }
}

pub(super) fn failure(target: &TargetPath, what: MountFailure) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Mount { what, target: target.to_string(), source }
}
