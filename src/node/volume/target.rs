//! The path a volume is published on, and the kubelet's root directory, below which it has to be.
//!
//! Pure: nothing is looked up. Without a known root the path's prefix is free; what could lead elsewhere is always refused. `site`
//! opens it.

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
    /// The path is too short, too long, or not in its shortest form.
    #[error("must name a directory below another one in its shortest form, without '.', '..', '//' or NUL")]
    NotClean,
    /// More than 4,095 bytes.
    #[error("is {0} bytes long; at most 4095 are possible")]
    TooLong(usize),
}

impl TargetPath {
    /// Takes the `target_path` of a request.
    ///
    /// # Errors
    /// The rule that the text breaks.
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

    /// The directory above.
    pub fn parent(&self) -> PathBuf {
        PathBuf::from(self.0.rsplit_once('/').map_or("/", |(above, _)| above))
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }
}

/// Where a kubelet has a CSI volume: `<root>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KubeletVolume<'a> {
    /// The kubelet's root directory.
    pub(super) root: &'a str,
    /// The components between the root and the target.
    pub(super) below: [&'a str; 5],
}

impl TargetPath {
    /// Takes the path apart as that of a kubelet's CSI volume; `None` when it does not look like one.
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
    /// Takes the path, and leaves out `.` and what slashes are too many, as the kubelet does with its own.
    ///
    /// # Errors
    /// A path that is relative, or `/`, or has `..` or a NUL byte.
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
