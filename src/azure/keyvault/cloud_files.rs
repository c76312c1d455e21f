//! Custom clouds (AzureStackCloud) from the administrator's files, and why one cannot be used.

use std::io;

use super::administrator_file::{CloudFileName, CloudFiles};
use super::cloud::{Cloud, CloudError};
use crate::platform::contained::ContainedFileError;

/// How much of a refused name an error shows, in characters.
const MAX_SHOWN: usize = 256;

/// The variable with the file for classes that name none.
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
    /// The class does not name a file of the administrator; whether it exists was not checked.
    #[error(
        "cloudEnvFileName {named:?} is refused: only files of the driver's --cloud-files-dir (chart value cloudFiles) and \
         the file of its --cloud-file ({CLOUD_FILE_VARIABLE}) are read; put the file into that folder and write its name"
    )]
    Refused {
        /// The beginning of the name.
        named: String,
    },
    /// The file cannot be read.
    #[error("cloudName AzureStackCloud is not valid: cannot read {file:?} of {setting}: {source}")]
    Unreadable {
        /// Its path.
        file: String,
        /// The setting that allows to read it.
        setting: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// Reading did not complete in time, or its thread died.
    #[error(
        "cloudName AzureStackCloud is not valid: cannot read {}: {source}",
        .file.as_deref().unwrap_or("the file of --cloud-file")
    )]
    Unread {
        /// The name in the class, if there is one.
        file: Option<String>,
        /// The cause.
        source: io::Error,
    },
    /// The file's content is wrong.
    #[error("cloudName AzureStackCloud is not valid: file {file:?} of {setting}: {source}")]
    Content {
        /// Its path.
        file: String,
        /// The setting that allows to read it.
        setting: &'static str,
        /// What is wrong with it.
        source: CloudError,
    },
    /// There is no cloud of this name.
    #[error(transparent)]
    Name(#[from] CloudError),
}

impl CloudFileError {
    /// The refusal of a name, of which the text shows the beginning.
    pub fn refused(named: &str) -> CloudFileError {
        CloudFileError::Refused { named: named.chars().take(MAX_SHOWN).collect() }
    }
}

impl CloudFiles {
    /// The cloud of the file that a class names, or of the one for classes that name none. Blocks
    /// while it reads.
    ///
    /// # Errors
    /// A file that is not the administrator's, that cannot be read, or that does not describe a
    /// cloud.
    pub fn read(&self, named: Option<&CloudFileName>) -> Result<Cloud, CloudFileError> {
        let refused = || named.map_or(CloudFileError::NotNamed, |name| CloudFileError::refused(name.as_str()));
        let source = self.source(named).ok_or_else(refused)?;
        let (file, setting) = (source.path().display().to_string(), source.setting());
        let content = source.content().map_err(|refusal| match refusal {
            ContainedFileError::LeadsOut => refused(),
            ContainedFileError::Unreadable(source) => {
                CloudFileError::Unreadable { file: file.clone(), setting, source }
            }
        })?;
        Cloud::of_file(&content).map_err(|source| CloudFileError::Content { file, setting, source })
    }
}
