//! The encodings of a secret's value: UTF-8, base64, hex.
//!
//! Decodes into buffers that are wiped on drop, and never puts a part of a value into an error. The
//! rules are those of Go's standard library, which upstream uses
//! (docs/reference/azure-provider.md#encodings).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Bytes that are wiped on drop.
pub type Bytes = Zeroizing<Vec<u8>>;

/// Text that is wiped on drop.
pub type Text = Zeroizing<String>;

/// Why a text cannot be decoded: positions and lengths, never content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A character outside the standard base64 alphabet, or misplaced padding.
    #[error("the value is not base64: byte {position} of {length} is not allowed there")]
    Base64 {
        /// Counted from 1.
        position: usize,
        /// The value's length in bytes.
        length: usize,
    },
    /// The number of characters is not a multiple of four.
    #[error("the value is not base64: its {length} bytes end in an incomplete group, or the padding '=' is missing")]
    Base64Length {
        /// The value's length in bytes.
        length: usize,
    },
    /// A character that is not a hex digit.
    #[error("the value is not hex: byte {position} of {length} is not a hex digit")]
    Hex {
        /// Counted from 1.
        position: usize,
        /// The value's length in bytes.
        length: usize,
    },
    /// The last character is a line break, which `echo` appends.
    #[error("the value is not hex: it ends with a line break (of {length} bytes in all)")]
    HexLineBreak {
        /// The value's length in bytes.
        length: usize,
    },
    /// An odd number of digits.
    #[error("the value is not hex: {length} digits are an odd number")]
    HexLength {
        /// The value's length in bytes.
        length: usize,
    },
}

/// Go's `base64.StdEncoding`: standard alphabet, padding required, bits after the last byte
/// ignored.
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of `text` as they are.
pub fn utf8(text: &str) -> Bytes {
    Zeroizing::new(text.as_bytes().to_vec())
}

/// Standard base64 on one line.
pub fn to_base64(bytes: &[u8]) -> Text {
    // One allocation: a growing buffer would leave copies of its content.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// Decodes standard base64; skips carriage returns and line feeds anywhere.
///
/// # Errors
/// Any other character (spaces and the URL-safe alphabet too), missing padding, or an incomplete
/// group.
pub fn base64(text: &str) -> Result<Bytes, Error> {
    let length = text.len();
    let mut joined = Zeroizing::new(Vec::with_capacity(length));
    joined.extend(text.bytes().filter(|byte| !is_line_break(*byte)));
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(joined.len())]);
    let written = STANDARD.decode_slice(joined.as_slice(), &mut bytes).map_err(|error| match error {
        base64::DecodeSliceError::DecodeError(
            base64::DecodeError::InvalidByte(offset, _) | base64::DecodeError::InvalidLastSymbol(offset, _),
        ) => Error::Base64 { position: position(text, offset), length },
        base64::DecodeSliceError::DecodeError(
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding,
        )
        | base64::DecodeSliceError::OutputSliceTooSmall => Error::Base64Length { length },
    })?;
    bytes.truncate(written);
    Ok(bytes)
}

/// Bytes as base64 for URLs without padding (RFC 4648 §5), the form of numbers in JSON Web Keys.
pub fn base64url(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes hex digits of any case.
///
/// # Errors
/// An odd number of digits, or any other character, including white space and a final line break.
pub fn hex(text: &str) -> Result<Bytes, Error> {
    let length = text.len();
    if text.bytes().next_back().is_some_and(is_line_break) {
        return Err(Error::HexLineBreak { length });
    }
    if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_hexdigit()) {
        return Err(Error::Hex { position: at + 1, length });
    }
    let mut bytes = Zeroizing::new(vec![0; length / 2]);
    hex::decode_to_slice(text, &mut bytes).map_err(|_| Error::HexLength { length })?;
    Ok(bytes)
}

/// The position in `text`, counted from 1, of byte `offset` of its bytes without line breaks.
fn position(text: &str, offset: usize) -> usize {
    let mut kept = text.bytes().enumerate().filter(|(_, byte)| !is_line_break(*byte));
    kept.nth(offset).map_or(text.len(), |(at, _)| at + 1)
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}
