//! Decodes a value to the bytes of a file, in the encoding of the class
//! (docs/reference/azure-provider.md#encodings), and has all errors of rendering.
//!
//! Pure.

use super::mistake::shown;
use super::object::Encoding;
use crate::formats::encoding::{self, Bytes};
use crate::formats::{chain, jwk, pkcs12};
use crate::model::FileNameError;

/// Why an object cannot be rendered as the class asks. Names the object and the fix, never content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} cannot be rendered {fault}; {}", .fault.fix())]
pub struct RenderError {
    /// Type and name of the object, with the index of the version in history mode.
    pub object: String,
    /// What is wrong.
    pub fault: RenderFault,
}

/// What is wrong with an object's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderFault {
    /// The value is not in the encoding that the class names.
    #[error("with objectEncoding {encoding}: {source}")]
    Encoding {
        /// The encoding.
        encoding: &'static str,
        /// Whether the value is PEM that was converted from a certificate.
        pem: bool,
        /// Where the value breaks the encoding.
        source: encoding::Error,
    },
    /// The secret belongs to a certificate, but its content type is another one or missing.
    #[error(
        "as a certificate: its content type {} is neither application/x-pkcs12 nor application/x-pem-file",
        .0.as_deref().map_or("(none)".to_owned(), shown)
    )]
    ContentType(Option<String>),
    /// The archive cannot be read.
    #[error("as PEM: {0}")]
    Archive(#[from] pkcs12::Error),
    /// The certificates in the archive have no order.
    #[error("as a PEM chain: {0}")]
    Chain(#[from] chain::Error),
    /// The public half of the key cannot be written.
    #[error("as PEM: {0}")]
    Key(#[from] jwk::Error),
    /// A suffix makes the file name too long.
    #[error("with {appended:?} behind its file name: {source}")]
    FileName {
        /// The suffix.
        appended: String,
        /// The rule that the name then breaks.
        source: FileNameError,
    },
}

impl RenderFault {
    /// Whether rendering would exceed the work limit.
    pub(super) fn is_too_expensive(&self) -> bool {
        matches!(self, RenderFault::Archive(pkcs12::Error::TooMuchWork { .. }))
    }

    /// The fix.
    fn fix(&self) -> &'static str {
        match self {
            RenderFault::Encoding { pem: true, .. } => {
                "leave objectEncoding out to get PEM, or set objectFormat pfx with objectEncoding base64 to get the binary archive"
            }
            RenderFault::Encoding { source: encoding::Error::HexLineBreak { .. }, .. } => {
                "store it without the line break, with printf instead of echo"
            }
            RenderFault::Encoding { .. } => "store the value in that encoding, or leave objectEncoding out",
            RenderFault::ContentType(_) => "import the certificate into the vault again, as PFX or PEM",
            RenderFault::Archive(pkcs12::Error::TooMuchWork { .. }) => {
                "import what comes of that into the vault, or set objectFormat pfx to mount the archive as it is"
            }
            RenderFault::Archive(_) => {
                "import the certificate into the vault again, from a PFX file that openssl pkcs12 reads, or set objectFormat \
                 pfx to mount it as it is"
            }
            RenderFault::Chain(chain::Error::Empty) => "import the PFX into the vault again with its certificate",
            RenderFault::Chain(chain::Error::NoLeaf(_) | chain::Error::Cycle) => {
                "import the certificate again with each certificate of the chain once, or run the driver with \
                 --construct-pem-chain=false"
            }
            RenderFault::Key(jwk::Error::Type(_) | jwk::Error::Curve(_)) => {
                "take the object out of the class, or use a key of another type"
            }
            RenderFault::Key(jwk::Error::Missing(_) | jwk::Error::Number(..)) => {
                "look at the key with az keyvault key show, and make a new version of it if it is damaged"
            }
            RenderFault::FileName { .. } => "give the object a shorter objectAlias",
        }
    }
}

/// The bytes that `value` encodes; `pem` is for the error, see [`RenderFault::Encoding`].
///
/// # Errors
/// A value that is not in the encoding.
pub(super) fn decode(value: &str, encoding: Encoding, pem: bool) -> Result<Bytes, RenderFault> {
    let (encoding, decoded) = match encoding {
        Encoding::Utf8 => ("utf-8", Ok(encoding::utf8(value))),
        Encoding::Base64 => ("base64", encoding::base64(value)),
        Encoding::Hex => ("hex", encoding::hex(value)),
    };
    decoded.map_err(|source| RenderFault::Encoding { encoding, pem, source })
}
