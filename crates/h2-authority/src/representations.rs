//! Splits an HPACK header block into its field representations (RFC 7541 §6).
//!
//! Pure. Measures fields and finds their strings; has no tables and no Huffman code, so it does not
//! decode them. [`super::headers`] decodes field by field with it: the decoder alone accepts only
//! whole blocks, cannot stop at a limit (64 KiB of empty Huffman strings take it a second), does
//! not report which fields are never indexed, and accepts a table size update anywhere.

use std::ops::Range;

use super::error::ConnectionError;

/// A block may start with two table size updates: the smallest size since the last block and the
/// final one (RFC 7541 §4.2).
const MAX_SIZE_UPDATES: usize = 2;

/// The octets of an integer, including the prefix; the same limit as the decoder's, enough for 28
/// bits.
const MAX_INTEGER_LENGTH: usize = 5;

/// One field as the client encoded it.
pub(super) struct Representation<'a> {
    /// The field's bytes; for the first field of a block including the table size updates before
    /// it.
    pub(super) bytes: &'a [u8],
    /// The field's strings: a name, a value, both or none.
    pub(super) literals: [Option<Literal>; 2],
    /// The field must not be indexed on any hop (RFC 7541 §6.2.3).
    pub(super) never_indexed: bool,
}

/// A string of a field (RFC 7541 §5.2), as positions in the field's bytes.
pub(super) struct Literal {
    /// The position of its length, before the octets.
    pub(super) start: usize,
    pub(super) octets: Range<usize>,
    /// Whether the octets are Huffman-coded.
    pub(super) huffman: bool,
}

/// Iterates over the fields of one header block. Ends after the first error.
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
        // A block of updates only has no field: the decoder refuses it.
        let mut never_indexed = false;
        let mut literals = [None, None];
        if let Some(first) = self.rest.get(length) {
            never_indexed = first & 0xf0 == 0x10;
            (length, literals) = field(self.rest, length)?;
        }
        let bytes;
        (bytes, self.rest) = self.rest.split_at(length);
        Ok(Representation { bytes, literals, never_indexed })
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

/// The end of the field that begins at `start`, and its strings.
fn field(bytes: &[u8], start: usize) -> Result<(usize, [Option<Literal>; 2]), ConnectionError> {
    let field = &bytes[start..];
    let first = *field.first().ok_or(ConnectionError::FieldTruncated)?;
    if first & 0x80 != 0 {
        return Ok((start + integer(field, 7)?.1, [None, None]));
    }
    if first & 0xe0 == 0x20 {
        return Err(ConnectionError::SizeUpdateMisplaced);
    }
    let (name_index, length) = integer(field, if first & 0x40 != 0 { 6 } else { 4 })?;
    let mut end = start + length;
    let mut name = None;
    if name_index == 0 {
        let literal = literal(bytes, end)?;
        end = literal.octets.end;
        name = Some(literal);
    }
    let value = literal(bytes, end)?;
    Ok((value.octets.end, [name, Some(value)]))
}

fn literal(bytes: &[u8], start: usize) -> Result<Literal, ConnectionError> {
    let (octets, prefix_length) = integer(&bytes[start..], 7)?;
    let octets = start + prefix_length..start + prefix_length + octets;
    if octets.end > bytes.len() {
        return Err(ConnectionError::FieldTruncated);
    }
    Ok(Literal { start, octets, huffman: bytes[start] & 0x80 != 0 })
}

/// The value of an integer and the number of its octets (RFC 7541 §5.1); `prefix` is 4 to 7 bits.
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
