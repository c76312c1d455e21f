//! The cloud of a class: one of the known ones, or one that a file of the administrator describes.
//!
//! Unlike in upstream, the file of one class never applies to another. Which files may be read is
//! decided in `keyvault::CloudFiles`.

use std::io;

use tokio::time::{Instant, timeout_at};

use super::params::CloudChoice;
use crate::azure::keyvault::{Cloud, CloudFileError, CloudFileName, CloudFiles};

/// The cloud of classes that name none, and the files of custom clouds.
#[derive(Debug, Clone)]
pub struct DefaultCloud {
    /// One of the known clouds; `None` for the custom one.
    known: Option<Cloud>,
    files: CloudFiles,
}

impl DefaultCloud {
    /// The cloud and the files that the flags name.
    ///
    /// # Errors
    /// The name is not a cloud, or it is the custom one and its file, if one is set, cannot be
    /// used.
    pub fn new(name: &str, files: CloudFiles) -> Result<DefaultCloud, CloudFileError> {
        let known = match Cloud::is_custom(name) {
            true => None,
            false => Some(Cloud::named(name)?),
        };
        if known.is_none() && files.file.is_some() {
            files.read(None)?;
        }
        Ok(DefaultCloud { known, files })
    }

    /// The cloud that a class chooses; the file of a custom one is read each time.
    ///
    /// # Errors
    /// The cloud or its file does not exist, or the file cannot be read before the deadline.
    pub(super) async fn resolve(&self, choice: &CloudChoice, deadline: Instant) -> Result<Cloud, CloudFileError> {
        let named = match (choice, &self.known) {
            (CloudChoice::Named(name), _) if !Cloud::is_custom(name) => return Ok(Cloud::named(name)?),
            (CloudChoice::Default(_), Some(known)) => return Ok(known.clone()),
            (CloudChoice::Default(Some(text)), None) => {
                Some(CloudFileName::new(text).ok_or_else(|| CloudFileError::refused(text))?)
            }
            (CloudChoice::Default(None), None) | (CloudChoice::Named(_), _) => None,
            (CloudChoice::File(file), _) => Some(file.clone()),
        };
        let (files, shown) = (self.files.clone(), named.clone());
        let unread = |source| CloudFileError::Unread { file: shown.map(|name| name.to_string()), source };
        match timeout_at(deadline, tokio::task::spawn_blocking(move || files.read(named.as_ref()))).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(unread(io::Error::other(error))),
            Err(_) => Err(unread(io::ErrorKind::TimedOut.into())),
        }
    }
}
