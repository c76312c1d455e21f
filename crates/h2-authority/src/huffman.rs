//! Replaces the Huffman-coded strings of a field by plain ones (RFC 7541 §5.2), before the field is
//! decoded.
//!
//! Pure. loona-hpack's field decoder builds its code table for each string, with 102 allocations;
//! this module creates the Huffman decoder of the same crate once for each thread.

use std::cell::RefCell;

use loona_hpack::decoder::{DecoderError, StringDecodingError};
use loona_hpack::huffman::HuffmanDecoder;

use super::representations::Representation;

thread_local! {
    static CODE: RefCell<HuffmanDecoder> = RefCell::new(HuffmanDecoder::new());
}

/// The field's bytes without Huffman code; in `buffer` if they differ from the original ones.
///
/// A string grows by 8/5 at most: the shortest code has five bits.
pub(super) fn without_huffman<'a>(
    field: &Representation<'a>,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], DecoderError> {
    buffer.clear();
    let mut copied = 0;
    for literal in field.literals.iter().flatten().filter(|literal| literal.huffman) {
        let octets = &field.bytes[literal.octets.clone()];
        let string = CODE.with_borrow_mut(|code| code.decode(octets));
        let string =
            string.map_err(StringDecodingError::HuffmanDecoderError).map_err(DecoderError::StringDecodingError)?;
        buffer.extend_from_slice(&field.bytes[copied..literal.start]);
        append_string(&string, buffer);
        copied = literal.octets.end;
    }
    if copied == 0 {
        return Ok(field.bytes);
    }
    buffer.extend_from_slice(&field.bytes[copied..]);
    Ok(buffer)
}

/// Appends a string literal without Huffman code (RFC 7541 §5.2): the reader is in this process, so
/// a shorter form would save nothing.
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
