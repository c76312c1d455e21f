//! Pure. What a provider's reply means: a volume's content, or why there is none.
//!
//! In upstream's order (docs/reference/csi-driver.md#mount-reply); paths by the rules of
//! docs/reference/csi-driver.md#file-paths, which `model::FileName` holds. No content enters a
//! text.

use std::collections::BTreeMap;

use keyvault_csi_proto::provider::{File, MountResponse};

use super::error::Fault;
use super::limits;
use super::redact::Redactor;
use crate::model::{FileMode, FileName, ObjectVersion, Payload, PayloadError, SecretBytes, SecretFile};

/// The bits of a mode that are applied.
const PERMISSIONS: u32 = 0o777;

/// The content of a volume that may have as many bytes as `limit`.
pub(super) fn interpret(reply: MountResponse, limit: usize, redactor: &Redactor<'_>) -> Result<Payload, Fault> {
    let MountResponse { object_version, error, files } = reply;
    if let Some(error) = error.filter(|error| !error.code.is_empty()) {
        return Err(Fault::Code { code: redactor.redact(&error.code) });
    }
    if object_version.is_empty() {
        return Err(Fault::NoVersions);
    }
    if files.is_empty() {
        return Err(Fault::NoFiles);
    }
    let told: usize = object_version.iter().map(|version| version.id.len() + version.version.len()).sum();
    if told > limits::VERSIONS {
        return Err(Fault::Versions(told));
    }
    // The last of several of one id, or path, wins, as in upstream's maps.
    let versions: BTreeMap<String, String> =
        object_version.into_iter().map(|version| (version.id, version.version)).collect();
    let versions = versions.into_iter().map(|(id, version)| ObjectVersion { id, version });
    let files = files.into_iter().map(|written| file(written, redactor)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let payload = Payload::within(limit, files.into_values().collect(), versions.collect());
    payload.map_err(|error| Fault::Payload(without_secrets(error, redactor)))
}

/// The error with paths that may be shown: they come from the provider.
fn without_secrets(error: PayloadError, redactor: &Redactor<'_>) -> PayloadError {
    match error {
        PayloadError::Duplicate(path) => PayloadError::Duplicate(redactor.redact(&path)),
        PayloadError::FileAndDirectory { file, below } => {
            PayloadError::FileAndDirectory { file: redactor.redact(&file), below: redactor.redact(&below) }
        }
        other @ (PayloadError::TooLarge { .. } | PayloadError::Empty) => other,
    }
}

fn file(file: File, redactor: &Redactor<'_>) -> Result<(FileName, SecretFile), Fault> {
    let File { path, mode, contents } = file;
    let content = SecretBytes::from(contents);
    let name = FileName::new(&path).map_err(|source| Fault::Path { path: redactor.redact(&path), source })?;
    let mode = match u32::try_from(mode) {
        // Not set, as far as the protocol can tell: what the request said is the default.
        Ok(0) => FileMode::DEFAULT,
        Ok(mode) => FileMode::new(mode & PERMISSIONS).unwrap_or(FileMode::DEFAULT),
        Err(_) => return Err(Fault::Mode { path: redactor.redact(&path), mode }),
    };
    Ok((name.clone(), SecretFile { name, mode, content }))
}
