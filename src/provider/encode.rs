//! From a secret's value to the bytes of its file.
//!
//! Pure; decodes as the object says and fetches nothing. So far only values that are not backed by a certificate
//! (spec/azure-provider.md §4.2 case 1 and §4.4). The result goes into a `model::Payload`.

use super::object::{Encoding, ObjectSpec};
use crate::formats::encoding;
use crate::model::{ExposeSecret, FileMode, SecretBytes, SecretFile, SecretString};

/// Why a value cannot be rendered as the class asks; names the object, never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} cannot be rendered with objectEncoding {encoding}: {source}; {fix}")]
pub struct RenderError {
    /// Type and name of the object.
    pub object: String,
    /// The encoding the class asks for.
    pub encoding: &'static str,
    /// What is wrong with the value.
    pub source: encoding::Error,
    /// What to do about it.
    pub fix: &'static str,
}

/// The file of a secret that is not backed by a certificate; `default_mode` is that of the mount.
///
/// # Errors
/// A value that is not in the encoding of the class.
pub fn opaque(spec: &ObjectSpec, value: &SecretString, default_mode: FileMode) -> Result<SecretFile, RenderError> {
    let value = value.expose_secret();
    let (encoding, decoded) = match spec.encoding {
        Encoding::Utf8 => ("utf-8", Ok(encoding::utf8(value))),
        Encoding::Base64 => ("base64", encoding::base64(value)),
        Encoding::Hex => ("hex", encoding::hex(value)),
    };
    let mut bytes = decoded.map_err(|source| {
        let fix = match source {
            encoding::Error::HexLineBreak { .. } => "store it without the line break, with printf instead of echo",
            encoding::Error::Base64 { .. }
            | encoding::Error::Base64Length { .. }
            | encoding::Error::Hex { .. }
            | encoding::Error::HexLength { .. } => "store the value in that encoding, or leave objectEncoding out",
        };
        RenderError { object: spec.version_id(None), encoding, source, fix }
    })?;
    // The buffer moves out of its wrapper, so that no copy is left to wipe.
    let content = SecretBytes::from(std::mem::take(&mut *bytes));
    Ok(SecretFile { name: spec.file.clone(), mode: spec.mode.unwrap_or(default_mode), content })
}
