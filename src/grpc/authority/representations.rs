//! Splits an HPACK header block into its field representations (RFC 7541 §6).
//!
//! Pure. It measures fields and does not decode them, so it knows neither tables nor Huffman codes.
//! [`super::headers`] decodes field by field with it: the decoder alone takes a whole block, cannot be stopped at a
//! limit (64 KiB of empty Huffman strings cost it a second), does not tell which fields are never indexed, and lets a
//! table size update stand anywhere.

use super::error::ConnectionError;

/// A block may start with two table size updates: the smallest size since the last block and the final one (RFC 7541
/// §4.2).
const MAX_SIZE_UPDATES: usize = 2;

/// The octets that an integer may have, prefix included; the same limit as the decoder's, enough for 28 bits.
const MAX_INTEGER_LENGTH: usize = 5;

/// One field as the client encoded it.
pub(super) struct Representation<'a> {
    /// The field's bytes; for the first field of a block with the table size updates before it.
    pub(super) bytes: &'a [u8],
    /// The client asks that this field never be indexed, on no hop (RFC 7541 §6.2.3).
    pub(super) never_indexed: bool,
}

/// The fields of one header block, in order. It ends at the first error.
pub(super) struct Representations<'a> {
    rest: &'a [u8],
    at_start: bool,
}

impl<'a> Representations<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { rest: block, at_start: true }
    }

    fn split_next(&mut self) -> Result<Representation<'a>, ConnectionError> {
        let mut length = 0;
        if self.at_start {
            self.at_start = false;
            length = size_updates_length(self.rest)?;
        }
        // A block of nothing but updates has no field: the decoder refuses it.
        let mut never_indexed = false;
        if let Some(first) = self.rest.get(length) {
            never_indexed = first & 0xf0 == 0x10;
            length += field_length(&self.rest[length..])?;
        }
        let bytes;
        (bytes, self.rest) = self.rest.split_at(length);
        Ok(Representation { bytes, never_indexed })
    }
}

impl<'a> Iterator for Representations<'a> {
    type Item = Result<Representation<'a>, ConnectionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.split_next();
        if next.is_err() {
            self.rest = &[];
        }
        Some(next)
    }
}

fn size_updates_length(bytes: &[u8]) -> Result<usize, ConnectionError> {
    let mut length = 0;
    for _ in 0..MAX_SIZE_UPDATES {
        if bytes.get(length).is_none_or(|first| first & 0xe0 != 0x20) {
            break;
        }
        length += integer(&bytes[length..], 5)?.1;
    }
    Ok(length)
}

fn field_length(bytes: &[u8]) -> Result<usize, ConnectionError> {
    let first = *bytes.first().ok_or(ConnectionError::FieldTruncated)?;
    if first & 0x80 != 0 {
        return Ok(integer(bytes, 7)?.1);
    }
    if first & 0xe0 == 0x20 {
        return Err(ConnectionError::SizeUpdateMisplaced);
    }
    let (name_index, mut length) = integer(bytes, if first & 0x40 != 0 { 6 } else { 4 })?;
    if name_index == 0 {
        length += string_length(&bytes[length..])?;
    }
    length += string_length(&bytes[length..])?;
    Ok(length)
}

/// The length of a string literal with its length prefix (RFC 7541 §5.2).
fn string_length(bytes: &[u8]) -> Result<usize, ConnectionError> {
    let (octets, prefix_length) = integer(bytes, 7)?;
    let length = prefix_length + octets;
    if length > bytes.len() {
        return Err(ConnectionError::FieldTruncated);
    }
    Ok(length)
}

/// The value of an integer and the octets it takes (RFC 7541 §5.1); `prefix` is 4 to 7 bits.
fn integer(bytes: &[u8], prefix: u32) -> Result<(usize, usize), ConnectionError> {
    let (first, rest) = bytes.split_first().ok_or(ConnectionError::FieldTruncated)?;
    let largest = (1 << prefix) - 1;
    let mut value = usize::from(*first) & largest;
    if value < largest {
        return Ok((value, 1));
    }
    for (position, octet) in rest.iter().enumerate().take(MAX_INTEGER_LENGTH - 1) {
        value += usize::from(octet & 0x7f) << (7 * position);
        if octet & 0x80 == 0 {
            return Ok((value, position + 2));
        }
    }
    if rest.len() < MAX_INTEGER_LENGTH - 1 {
        Err(ConnectionError::FieldTruncated)
    } else {
        Err(ConnectionError::IntegerTooLong)
    }
}
