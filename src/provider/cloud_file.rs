//! The file with the addresses of a custom cloud (AzureStackCloud).
//!
//! Read anew at each mount, since it may change; what stands in it is checked by `keyvault::Cloud`.
//! Unlike upstream, the file of one class never becomes that of another (spec/azure-provider.md §13.7).

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::keyvault::{Cloud, CloudError};

/// The largest file; real ones have about 2 KiB.
const LARGEST: u64 = 64 << 10;

/// The variable that names the file for classes that name none (spec/azure-provider.md §5.9).
pub const CLOUD_FILE_VARIABLE: &str = "AZURE_ENVIRONMENT_FILEPATH";

/// Why a cloud cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CloudFileError {
    /// Neither the class nor the driver's environment names a file.
    #[error(
        "cloudName AzureStackCloud is not valid without a file: set cloudEnvFileName in the class, or \
         {CLOUD_FILE_VARIABLE} in the driver's environment"
    )]
    NotNamed,
    /// The file cannot be read.
    #[error(
        "cloudName AzureStackCloud is not valid: cannot read its file {path:?} in the driver's container: {source}"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's content is wrong.
    #[error("cloudName AzureStackCloud is not valid: file {path:?}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CloudError,
    },
    /// The name is none of the clouds.
    #[error(transparent)]
    Name(#[from] CloudError),
}

/// Reads a custom cloud.
///
/// # Errors
/// It is not a readable regular file of at most 64 KiB, or its content is wrong.
pub fn read_cloud(path: &Path) -> Result<Cloud, CloudFileError> {
    let bytes = read(path).map_err(|source| CloudFileError::Unreadable { path: path.to_owned(), source })?;
    Cloud::from_environment_json(&bytes).map_err(|source| CloudFileError::Content { path: path.to_owned(), source })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe or a device would keep us waiting, or never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    Ok(bytes)
}
