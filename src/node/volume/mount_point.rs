//! A target on this node: whether the driver may change it, and a path without symbolic links.
//!
//! If the kubelet's root is known, the driver changes only
//! `<root>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount`, and no component below the root may
//! be a symbolic link. The parent directory is opened once, component by component; all further
//! calls use that descriptor, so a component that is replaced later redirects nothing.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::error::{Error, MountFailure};
use super::target::{KubeletRoot, TargetPath};
use crate::platform::mount::{self, Entry};

/// A target, and the root that it must be below. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct MountPoint {
    pub(super) target: TargetPath,
    /// `None`: the target may be anywhere.
    root: Option<Arc<KubeletRoot>>,
}

/// A target with its parent directory held open.
pub(super) struct OpenMountPoint<'a> {
    pub(super) target: &'a TargetPath,
    pub(super) parent: OwnedFd,
}

impl MountPoint {
    pub(super) fn new(target: TargetPath, root: Option<Arc<KubeletRoot>>) -> MountPoint {
        MountPoint { target, root }
    }

    /// Opens the parent directory; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::OutsideRoot`] if the target is not below the root, and errors of the kernel.
    pub(super) fn open(&self) -> Result<Option<OpenMountPoint<'_>>, Error> {
        let Some(root) = &self.root else { return self.open_anywhere() };
        let volume = self.target.kubelet_volume().filter(|volume| volume.root == root.as_str());
        let volume = volume.ok_or_else(|| self.outside(root))?;
        match mount::open_below(Path::new(volume.root), &volume.below) {
            Err(error) if mount::is_link(&error) => Err(self.outside(root)),
            opened => self.opened(opened),
        }
    }

    /// Opens the parent directory wherever it is, following links. For reading only.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub(super) fn open_anywhere(&self) -> Result<Option<OpenMountPoint<'_>>, Error> {
        self.opened(mount::open_directory(&self.target.parent()))
    }

    /// Opens the parent directory of a target below another kubelet's root; `None` if this is not
    /// such a target, or the directory does not exist.
    pub(super) fn open_under_another_root(&self) -> Option<OpenMountPoint<'_>> {
        let volume = self.target.kubelet_volume()?;
        if self.root.as_ref().is_some_and(|root| root.as_str() == volume.root) {
            return None;
        }
        let parent = mount::open_below(Path::new(volume.root), &volume.below).ok()?;
        Some(OpenMountPoint { target: &self.target, parent })
    }

    /// Whether a symbolic link as target is refused: with a known root, it leads out of the root.
    pub(super) fn refuses_links(&self) -> bool {
        self.root.is_some()
    }

    fn opened(&self, opened: io::Result<OwnedFd>) -> Result<Option<OpenMountPoint<'_>>, Error> {
        match opened {
            Ok(parent) => Ok(Some(OpenMountPoint { target: &self.target, parent })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(failure(&self.target, MountFailure::Inspect)(error)),
        }
    }

    fn outside(&self, root: &KubeletRoot) -> Error {
        Error::OutsideRoot { target: self.target.to_string(), root: root.to_string() }
    }
}

impl OpenMountPoint<'_> {
    /// What is on the target.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub(super) fn inspect(&self) -> Result<Entry, Error> {
        mount::inspect(self.parent.as_fd(), self.target.name()).map_err(failure(self.target, MountFailure::Inspect))
    }

    /// Unmounts the topmost mount on the target.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub(super) fn unmount(&self) -> Result<(), Error> {
        mount::unmount_at(self.parent.as_fd(), self.target.name()).map_err(failure(self.target, MountFailure::Unmount))
    }
}

pub(super) fn failure(target: &TargetPath, what: MountFailure) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Mount { what, target: target.to_string(), source }
}
