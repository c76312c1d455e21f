//! Pure. Interprets a provider's reply: a volume's content, or an error.
//!
//! Checked in upstream's order (docs/reference/csi-driver.md#mount-reply); paths by the rules of
//! docs/reference/csi-driver.md#file-paths, which `model::FileName` has. No content enters a text.

use std::collections::BTreeMap;

use keyvault_csi_proto::provider::{File, MountResponse};

use super::error::ProviderFault;
use super::limits;
use super::redact::Redactor;
use crate::model::{FileMode, FileName, ObjectVersion, Payload, PayloadError, SecretBytes, SecretFile};

/// The bits of a mode that are applied.
const PERMISSIONS: u32 = 0o777;

/// The content of a volume that may have as many bytes as `limit`.
pub(super) fn interpret(reply: MountResponse, limit: usize, redactor: &Redactor<'_>) -> Result<Payload, ProviderFault> {
    let MountResponse { object_version, error, files } = reply;
    if let Some(error) = error.filter(|error| !error.code.is_empty()) {
        return Err(ProviderFault::Code { code: redactor.redact(&error.code) });
    }
    if object_version.is_empty() {
        return Err(ProviderFault::NoVersions);
    }
    if files.is_empty() {
        return Err(ProviderFault::NoFiles);
    }
    let bytes: usize = object_version.iter().map(|version| version.id.len() + version.version.len()).sum();
    if bytes > limits::VERSIONS {
        return Err(ProviderFault::Versions(bytes));
    }
    // The last version of an id, and the last file of a path, win, as in upstream's maps.
    let versions: BTreeMap<String, String> =
        object_version.into_iter().map(|version| (version.id, version.version)).collect();
    let versions = versions.into_iter().map(|(id, version)| ObjectVersion { id, version });
    let files = files.into_iter().map(|written| file(written, redactor)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let payload = Payload::within(limit, files.into_values().collect(), versions.collect());
    payload.map_err(|error| ProviderFault::Payload(without_secrets(error, redactor)))
}

/// Redacts the paths, which come from the provider.
fn without_secrets(error: PayloadError, redactor: &Redactor<'_>) -> PayloadError {
    match error {
        PayloadError::Duplicate(path) => PayloadError::Duplicate(redactor.redact(&path)),
        PayloadError::FileAndDirectory { file, below } => {
            PayloadError::FileAndDirectory { file: redactor.redact(&file), below: redactor.redact(&below) }
        }
        other @ (PayloadError::TooLarge { .. } | PayloadError::Empty) => other,
    }
}

fn file(file: File, redactor: &Redactor<'_>) -> Result<(FileName, SecretFile), ProviderFault> {
    let File { path, mode, contents } = file;
    let content = SecretBytes::from(contents);
    let name = FileName::new(&path).map_err(|source| ProviderFault::Path { path: redactor.redact(&path), source })?;
    let mode = match u32::try_from(mode) {
        // Unset in the protocol: the default of the request applies.
        Ok(0) => FileMode::DEFAULT,
        Ok(mode) => FileMode::new(mode & PERMISSIONS).unwrap_or(FileMode::DEFAULT),
        Err(_) => return Err(ProviderFault::Mode { path: redactor.redact(&path), mode }),
    };
    Ok((name.clone(), SecretFile { name, mode, content }))
}
