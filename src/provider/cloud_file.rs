//! The file with the addresses of a custom cloud (AzureStackCloud).
//!
//! Read anew at each mount, since it may change; what stands in it is checked by `keyvault::Cloud`.
//! Unlike upstream, the file of one class never becomes that of another (spec/azure-provider.md §13.7).

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tokio::time::{Instant, timeout_at};

use super::params::CloudChoice;
use crate::keyvault::{Cloud, CloudError};
use crate::platform::dir::read_ordinary_file;

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

/// The cloud of classes that name none, and the file of custom clouds whose classes name none.
#[derive(Debug, Clone)]
pub struct DefaultCloud {
    /// One of the known clouds; `None` when it is the custom one.
    known: Option<Cloud>,
    /// What [`CLOUD_FILE_VARIABLE`] says.
    file: Option<PathBuf>,
}

impl DefaultCloud {
    /// Takes what the driver was started with.
    ///
    /// # Errors
    /// The name is none of the clouds, or it is the custom one and its file, if there is one already, cannot be used.
    pub fn new(name: &str, file: Option<PathBuf>) -> Result<DefaultCloud, CloudFileError> {
        let known = match Cloud::is_custom(name) {
            true => None,
            false => Some(Cloud::named(name)?),
        };
        if let (None, Some(file)) = (&known, &file) {
            read_cloud(file)?;
        }
        Ok(DefaultCloud { known, file })
    }

    /// The cloud that a class chooses; custom ones are read anew each time.
    ///
    /// # Errors
    /// There is no such cloud or file, or reading it takes longer than until `deadline`.
    pub(super) async fn resolve(&self, choice: &CloudChoice, deadline: Instant) -> Result<Cloud, CloudFileError> {
        let own = match (choice, &self.known) {
            (CloudChoice::Named(name), _) if !Cloud::is_custom(name) => return Ok(Cloud::named(name)?),
            (CloudChoice::Default(_), Some(known)) => return Ok(known.clone()),
            (CloudChoice::Default(file), None) => file.clone(),
            (CloudChoice::Named(_), _) => None,
            (CloudChoice::File(file), _) => Some(file.clone()),
        };
        let file = own.or_else(|| self.file.clone()).ok_or(CloudFileError::NotNamed)?;
        let path = file.clone();
        match timeout_at(deadline, tokio::task::spawn_blocking(move || read_cloud(&file))).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(CloudFileError::Unreadable { path, source: io::Error::other(error) }),
            Err(_) => Err(CloudFileError::Unreadable { path, source: io::ErrorKind::TimedOut.into() }),
        }
    }
}

/// Reads a custom cloud.
///
/// The path may come from a pod's author. So it must not lead into a volume of a pod, where anybody could say what
/// an identity's token is sent to, and only ordinary files are opened.
fn read_cloud(path: &Path) -> Result<Cloud, CloudFileError> {
    let unreadable = |source| CloudFileError::Unreadable { path: path.to_owned(), source };
    let real = std::fs::canonicalize(path).map_err(unreadable)?;
    if real.components().any(|part| part.as_os_str().as_bytes().starts_with(b"kubernetes.io~")) {
        return Err(unreadable(io::Error::other("it lies in a pod's volume; only files of the node are taken")));
    }
    let bytes = read_ordinary_file(&real, LARGEST).map_err(unreadable)?;
    Cloud::from_environment_json(&bytes).map_err(|source| CloudFileError::Content { path: path.to_owned(), source })
}
