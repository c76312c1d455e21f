//! The path a volume is published on.
//!
//! Pure: nothing is looked up. The path is the kubelet's, so that its prefix is free; only what could lead elsewhere is
//! refused. `medium` opens it.

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

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
