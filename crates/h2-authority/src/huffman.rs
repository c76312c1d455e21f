//! Writes the Huffman-coded strings of a field out (RFC 7541 §5.2), so that the decoder of fields has none to decode.
//!
//! Pure. loona-hpack's decoder of fields builds its code table anew for each string, with 102 allocations; here the same crate's
//! Huffman decoder is made once a thread. [`super::headers`] calls it.

use std::cell::RefCell;

use loona_hpack::decoder::{DecoderError, StringDecodingError};
use loona_hpack::huffman::HuffmanDecoder;

use super::representations::Representation;

thread_local! {
    static CODE: RefCell<HuffmanDecoder> = RefCell::new(HuffmanDecoder::new());
}

/// The field's bytes, with all strings as they are; in `room` if that changes anything.
///
/// A string gets at most 8/5 as long: the shortest code has five bits.
pub(super) fn written_out<'a>(field: &Representation<'a>, room: &'a mut Vec<u8>) -> Result<&'a [u8], DecoderError> {
    room.clear();
    let mut copied = 0;
    for literal in field.literals.iter().flatten().filter(|literal| literal.huffman) {
        let octets = &field.bytes[literal.octets.clone()];
        let string = CODE.with_borrow_mut(|code| code.decode(octets));
        let string =
            string.map_err(StringDecodingError::HuffmanDecoderError).map_err(DecoderError::StringDecodingError)?;
        room.extend_from_slice(&field.bytes[copied..literal.start]);
        append_string(&string, room);
        copied = literal.octets.end;
    }
    if copied == 0 {
        return Ok(field.bytes);
    }
    room.extend_from_slice(&field.bytes[copied..]);
    Ok(room)
}

/// Appends a string literal without Huffman code (RFC 7541 §5.2): both ends are in this process, saving bytes saves
/// nothing.
pub(super) fn append_string(string: &[u8], output: &mut Vec<u8>) {
    const LARGEST_PREFIX: usize = 0x7f;
    if string.len() < LARGEST_PREFIX {
        output.push(string.len() as u8);
    } else {
        output.push(LARGEST_PREFIX as u8);
        let mut rest = string.len() - LARGEST_PREFIX;
        while rest >= 0x80 {
            output.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        output.push(rest as u8);
    }
    output.extend_from_slice(string);
}
