//! From a value to the bytes of a file, in the encoding of the class; and what can be wrong on the way.
//!
//! Pure; knows single values, not files (docs/reference/azure-provider.md#encodings). `render`
//! calls it and puts the object's name in front of what goes wrong.

use super::mistake::shown;
use super::object::Encoding;
use crate::formats::encoding::{self, Bytes};
use crate::formats::{chain, jwk, pkcs12};
use crate::model::FileNameError;

/// Why an object cannot be rendered as the class asks; names the object and the fix, never content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} cannot be rendered {fault}; {}", .fault.fix())]
pub struct RenderError {
    /// Type and name of the object, with the index of the version in history mode.
    pub object: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with an object's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The value is not in the encoding that the class names.
    #[error("with objectEncoding {encoding}: {source}")]
    Encoding {
        /// The encoding.
        encoding: &'static str,
        /// Whether the value is the PEM text that we made of a certificate.
        pem: bool,
        /// Where the value leaves the encoding.
        source: encoding::Error,
    },
    /// The secret belongs to a certificate, but says that it is something else, or nothing.
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
    /// The key has no public half that can be written.
    #[error("as PEM: {0}")]
    Key(#[from] jwk::Error),
    /// A file's name gets too long by what is appended to it.
    #[error("with {appended:?} behind its file name: {source}")]
    FileName {
        /// What is appended.
        appended: String,
        /// The rule that the name then breaks.
        source: FileNameError,
    },
}

impl Fault {
    /// Whether rendering would take more than is allowed.
    pub(super) fn is_too_expensive(&self) -> bool {
        matches!(self, Fault::Archive(pkcs12::Error::TooMuchWork { .. }))
    }

    /// What to do about it.
    fn fix(&self) -> &'static str {
        match self {
            Fault::Encoding { pem: true, .. } => {
                "leave objectEncoding out to get PEM, or set objectFormat pfx with objectEncoding base64 to get the binary archive"
            }
            Fault::Encoding { source: encoding::Error::HexLineBreak { .. }, .. } => {
                "store it without the line break, with printf instead of echo"
            }
            Fault::Encoding { .. } => "store the value in that encoding, or leave objectEncoding out",
            Fault::ContentType(_) => "import the certificate into the vault again, as PFX or PEM",
            Fault::Archive(pkcs12::Error::TooMuchWork { .. }) => {
                "import what comes of that into the vault, or set objectFormat pfx to mount the archive as it is"
            }
            Fault::Archive(_) => {
                "import the certificate into the vault again, from a PFX file that openssl pkcs12 reads, or set objectFormat \
                 pfx to mount it as it is"
            }
            Fault::Chain(chain::Error::Empty) => "import the PFX into the vault again with its certificate",
            Fault::Chain(chain::Error::NoLeaf(_) | chain::Error::Cycle) => {
                "import the certificate again with each certificate of the chain once, or run the driver with \
                 --construct-pem-chain=false"
            }
            Fault::Key(jwk::Error::Type(_) | jwk::Error::Curve(_)) => {
                "take the object out of the class, or use a key of another type"
            }
            Fault::Key(jwk::Error::Missing(_) | jwk::Error::Number(..)) => {
                "look at the key with az keyvault key show, and make a new version of it if it is damaged"
            }
            Fault::FileName { .. } => "give the object a shorter objectAlias",
        }
    }
}

/// The bytes that `value` stands for; `pem` is for the error, see [`Fault::Encoding`].
///
/// # Errors
/// A value that is not in the encoding.
pub(super) fn decode(value: &str, encoding: Encoding, pem: bool) -> Result<Bytes, Fault> {
    let (encoding, decoded) = match encoding {
        Encoding::Utf8 => ("utf-8", Ok(encoding::utf8(value))),
        Encoding::Base64 => ("base64", encoding::base64(value)),
        Encoding::Hex => ("hex", encoding::hex(value)),
    };
    decoded.map_err(|source| Fault::Encoding { encoding, pem, source })
}
