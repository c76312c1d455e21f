//! Pure. The path on which a volume is published, and the kubelet's root directory.
//!
//! Any prefix is valid here; a component that could lead to another directory never is.
//! `mount_point` compares a target with the root and opens it.

use std::fmt;
use std::path::{Path, PathBuf};

/// An absolute path without `.`, `..`, empty components or NUL bytes, of at least two components.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetPath(String);

/// Why a text is not a [`TargetPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetPathError {
    /// The path is relative.
    #[error("must be absolute, but is not")]
    Relative,
    /// The path has one component only, or is not in its shortest form.
    #[error("must name a directory below another one in its shortest form, without '.', '..', '//' or NUL")]
    NotClean,
    /// More than 4,095 bytes.
    #[error("is {0} bytes long; at most 4095 are possible")]
    TooLong(usize),
}

impl TargetPath {
    /// Parses the `target_path` of a request.
    ///
    /// # Errors
    /// The rule that the text violates.
    pub fn new(text: &str) -> Result<TargetPath, TargetPathError> {
        let Some(below) = text.strip_prefix('/') else {
            return Err(TargetPathError::Relative);
        };
        if text.len() > 4095 {
            return Err(TargetPathError::TooLong(text.len()));
        }
        let below = below.strip_suffix('/').unwrap_or(below);
        let clean = below.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if !clean || !below.contains('/') {
            return Err(TargetPathError::NotClean);
        }
        Ok(TargetPath(format!("/{below}")))
    }

    /// The whole path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The parent directory.
    pub fn parent(&self) -> PathBuf {
        PathBuf::from(self.0.rsplit_once('/').map_or("/", |(above, _)| above))
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }
}

/// The parts of `<root>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KubeletVolume<'a> {
    pub(super) root: &'a str,
    /// The components between the root and the target.
    pub(super) below: [&'a str; 5],
}

impl TargetPath {
    /// Parses the path as that of a kubelet's CSI volume; `None` if it is not one.
    pub(super) fn kubelet_volume(&self) -> Option<KubeletVolume<'_>> {
        let mut parts = self.0.rsplitn(7, '/');
        let (mount, name, csi) = (parts.next()?, parts.next()?, parts.next()?);
        let (volumes, uid, pods, root) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_csi = (mount, csi, volumes, pods) == ("mount", "kubernetes.io~csi", "volumes", "pods");
        let root = if root.is_empty() { "/" } else { root };
        is_csi.then_some(KubeletVolume { root, below: [pods, uid, volumes, csi, name] })
    }
}

/// The kubelet's root directory (its `--root-dir`): an absolute path without `..`, and not `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletRoot(String);

/// A text is not a [`KubeletRoot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the absolute path of a directory below /, without '..'; the kubelet's own default is /var/lib/kubelet"
)]
pub struct KubeletRootError;

impl KubeletRoot {
    /// Parses the path; removes `.` and redundant slashes, as the kubelet does.
    ///
    /// # Errors
    /// A path that is relative, or `/`, or contains `..` or a NUL byte.
    pub fn new(text: &str) -> Result<KubeletRoot, KubeletRootError> {
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let clean = parts.iter().all(|part| *part != ".." && !part.contains('\0'));
        if !text.starts_with('/') || parts.is_empty() || !clean || text.len() > 4095 {
            return Err(KubeletRootError);
        }
        Ok(KubeletRoot(format!("/{}", parts.join("/"))))
    }

    /// The whole path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for KubeletRoot {
    type Err = KubeletRootError;

    fn from_str(text: &str) -> Result<KubeletRoot, KubeletRootError> {
        KubeletRoot::new(text)
    }
}

impl fmt::Display for KubeletRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
