//! The files that describe custom clouds (AzureStackCloud), all of them the administrator's.
//!
//! Such a file says where an identity's token is sent. So a class only chooses among the files of one folder and the
//! one file that the driver's flags name; nothing that a tenant writes is a path of the driver's file system. Files are
//! read anew at each mount, since they may change.
//!
//! # Guarantees
//! Only [`CloudFiles`] makes an [`AdministratorFile`], and only that becomes a [`Cloud`] beside the built-in ones: so
//! tokens go to no other authority and no other vault domain. A refusal is the same whatever exists.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::cloud::{Cloud, CloudError};
use crate::platform::contained::{ContainedFileError, below, read_file_in};
use crate::platform::dir::read_ordinary_file;

/// The largest file; real ones have about 2 KiB.
const LARGEST: u64 = 64 << 10;

/// How much of a refused name an error shows, in characters.
const SHOWN: usize = 256;

/// The variable that names the file for classes that name none.
pub const CLOUD_FILE_VARIABLE: &str = "AZURE_ENVIRONMENT_FILEPATH";

/// Why a custom cloud cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CloudFileError {
    /// Neither the class nor the driver's flags name a file.
    #[error(
        "cloudName AzureStackCloud is not valid without a file: set cloudEnvFileName in the class, or --cloud-file \
         ({CLOUD_FILE_VARIABLE}) for the driver"
    )]
    NotNamed,
    /// The class names something else than a file of the administrator's; whether it exists was not looked at.
    #[error(
        "cloudEnvFileName {named:?} is refused: only files of the driver's --cloud-files-dir (chart value cloudFiles) and \
         the file of its --cloud-file ({CLOUD_FILE_VARIABLE}) are read; put the file into that folder and write its name"
    )]
    Refused {
        /// The beginning of what the class says.
        named: String,
    },
    /// The file cannot be read.
    #[error("cloudName AzureStackCloud is not valid: cannot read {file:?} of {setting}: {source}")]
    Unreadable {
        /// The file, as class or flag name it.
        file: String,
        /// The setting by which it may be read.
        setting: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Reading did not end in time, or its thread died.
    #[error("cloudName AzureStackCloud is not valid: cannot read {}: {source}", .file.as_deref().unwrap_or("the file of --cloud-file"))]
    Unread {
        /// What the class says; `None` where it names no file.
        file: Option<String>,
        /// What happened.
        source: io::Error,
    },
    /// The file's content is wrong.
    #[error("cloudName AzureStackCloud is not valid: file {file:?} of {setting}: {source}")]
    Content {
        /// The file, as class or flag name it.
        file: String,
        /// The setting by which it may be read.
        setting: &'static str,
        /// What is wrong with it.
        source: CloudError,
    },
    /// The name is none of the clouds.
    #[error(transparent)]
    Name(#[from] CloudError),
}

impl CloudFileError {
    /// A refusal of what a class says, of which the text shows the beginning.
    pub fn refused(named: &str) -> CloudFileError {
        CloudFileError::Refused { named: named.chars().take(SHOWN).collect() }
    }
}

/// What the class's `cloudEnvFileName` can name: a file in the folder, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudFileName(String);

impl CloudFileName {
    /// Takes what a class says; `None` when it is neither the name of a file nor an absolute path.
    pub fn new(text: &str) -> Option<CloudFileName> {
        let named = !text.contains('/') && !matches!(text, "" | "." | "..");
        ((named || text.starts_with('/')) && !text.contains('\0')).then(|| CloudFileName(text.to_owned()))
    }
}

impl fmt::Display for CloudFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The content of a file that the administrator put where this program was told to look.
///
/// The proof that a cloud needs; made only here.
#[derive(Debug)]
pub(super) struct AdministratorFile(Vec<u8>);

impl AdministratorFile {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Content that a test makes up.
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

/// Which file it is, and by which setting it may be read.
enum Source<'a> {
    InFolder { folder: &'a Path, path: PathBuf },
    File(&'a Path),
}

impl CloudFiles {
    /// The cloud of the file that a class names, or of the one for classes that name none. Blocks while it reads.
    ///
    /// # Errors
    /// A file that is not the administrator's, that cannot be read, or that describes no cloud.
    pub fn read(&self, named: Option<&CloudFileName>) -> Result<Cloud, CloudFileError> {
        let source = match named {
            None => self.file.as_deref().map(Source::File).ok_or(CloudFileError::NotNamed)?,
            Some(CloudFileName(name)) => self.source(name).ok_or_else(|| CloudFileError::refused(name))?,
        };
        let (file, setting) = match &source {
            Source::InFolder { path, .. } => (path.display().to_string(), "--cloud-files-dir"),
            Source::File(path) => (path.display().to_string(), "--cloud-file"),
        };
        let content = source.content().map_err(|refusal| match (refusal, named) {
            (ContainedFileError::LeadsOut, Some(CloudFileName(name))) => CloudFileError::refused(name),
            (ContainedFileError::LeadsOut, None) => CloudFileError::NotNamed,
            (ContainedFileError::Unreadable(source), _) => {
                CloudFileError::Unreadable { file: file.clone(), setting, source }
            }
        })?;
        Cloud::of_file(&content).map_err(|source| CloudFileError::Content { file, setting, source })
    }

    /// Decides by the text alone which file a class means; `None` when it is not the administrator's.
    fn source(&self, name: &str) -> Option<Source<'_>> {
        let path = Path::new(name);
        if let Some(file) = self.file.as_deref().filter(|file| path.is_absolute() && *file == path) {
            return Some(Source::File(file));
        }
        let folder = self.folder.as_deref()?;
        Some(Source::InFolder { folder, path: below(folder, path).ok()? })
    }
}

impl Source<'_> {
    fn content(&self) -> Result<AdministratorFile, ContainedFileError> {
        let bytes = match self {
            Source::InFolder { folder, path } => read_file_in(folder, path, LARGEST)?,
            Source::File(path) => read_ordinary_file(path, LARGEST).map_err(ContainedFileError::Unreadable)?,
        };
        Ok(AdministratorFile(bytes))
    }
}
