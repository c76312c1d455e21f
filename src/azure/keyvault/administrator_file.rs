//! The files that describe custom clouds (AzureStackCloud): which ones a class can name, and
//! reading them.
//!
//! Such a file decides where an identity's token is sent. So a class only chooses among the files
//! of one folder and the one file that the driver's flags name; no path that a tenant writes is
//! opened. Files are read at each mount, since they may change.
//!
//! # Guarantees
//! Only [`CloudFiles`] makes an [`AdministratorFile`], and only that becomes a `Cloud` beside the
//! built-in ones: so tokens are sent to no other authority and no other vault domain. A refusal is
//! the same whether or not the file exists.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::platform::contained::{ContainedFileError, below, read_file_in};
use crate::platform::dir::read_ordinary_file;

/// The largest file; real ones have about 2 KiB.
const MAX_FILE: u64 = 64 << 10;

/// The `cloudEnvFileName` of a class: the name of a file in the folder, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudFileName(String);

impl CloudFileName {
    /// `None` if the text is neither the name of a file nor an absolute path.
    pub fn new(text: &str) -> Option<CloudFileName> {
        let named = !text.contains('/') && !matches!(text, "" | "." | "..");
        ((named || text.starts_with('/')) && !text.contains('\0')).then(|| CloudFileName(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CloudFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The content of a file of the administrator: the proof that a cloud needs, made only here.
#[derive(Debug)]
pub(super) struct AdministratorFile(Vec<u8>);

impl AdministratorFile {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn made_up(bytes: &[u8]) -> AdministratorFile {
        AdministratorFile(bytes.to_owned())
    }
}

/// Where the administrator puts the descriptions of custom clouds.
#[derive(Debug, Clone, Default)]
pub struct CloudFiles {
    /// The folder of `--cloud-files-dir`.
    pub folder: Option<PathBuf>,
    /// The file of `--cloud-file`, for classes that name none.
    pub file: Option<PathBuf>,
}

/// A file, by the setting that allows to read it.
pub(super) enum CloudFileSource<'a> {
    InFolder { folder: &'a Path, path: PathBuf },
    File(&'a Path),
}

impl CloudFiles {
    /// The file of this name, or the one for classes that name none. Decides by the text alone;
    /// `None` if it is not the administrator's.
    pub(super) fn source(&self, name: Option<&CloudFileName>) -> Option<CloudFileSource<'_>> {
        let Some(CloudFileName(name)) = name else {
            return self.file.as_deref().map(CloudFileSource::File);
        };
        let path = Path::new(name);
        if let Some(file) = self.file.as_deref().filter(|file| path.is_absolute() && *file == path) {
            return Some(CloudFileSource::File(file));
        }
        let folder = self.folder.as_deref()?;
        Some(CloudFileSource::InFolder { folder, path: below(folder, path).ok()? })
    }
}

impl CloudFileSource<'_> {
    pub(super) fn path(&self) -> &Path {
        match self {
            CloudFileSource::InFolder { path, .. } => path,
            CloudFileSource::File(path) => path,
        }
    }

    pub(super) fn setting(&self) -> &'static str {
        match self {
            CloudFileSource::InFolder { .. } => "--cloud-files-dir",
            CloudFileSource::File(_) => "--cloud-file",
        }
    }

    /// Reads the file. Blocks.
    pub(super) fn content(&self) -> Result<AdministratorFile, ContainedFileError> {
        let bytes = match self {
            CloudFileSource::InFolder { folder, path } => read_file_in(folder, path, MAX_FILE)?,
            CloudFileSource::File(path) => {
                read_ordinary_file(path, MAX_FILE).map_err(ContainedFileError::Unreadable)?
            }
        };
        Ok(AdministratorFile(bytes))
    }
}
