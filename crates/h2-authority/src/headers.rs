//! Decodes HPACK header blocks, replaces `:authority`, and encodes them again (RFC 7541).
//!
//! Keeps the client's dynamic table for the lifetime of the connection. Does not validate names,
//! values or their order.
//!
//! The decoder is loona-hpack 0.4.3, because it is the only one of three candidates that does not
//! panic on hostile bytes: it limits integers to 5 octets, checks every slice, has a complete and
//! prefix-free Huffman code, so that no symbol exceeds 30 bits, and enforces its limit on table
//! size updates. httlib-hpack 0.1.3 indexes past the end of `ff` and `40`, and fluke-hpack 0.3.1,
//! the ancestor of loona-hpack, unwraps an error at `3f`. `representations` and `huffman` add what
//! the decoder lacks.

use loona_hpack::Decoder;

use super::error::ConnectionError;
use super::huffman::{append_string, without_huffman};
use super::representations::Representations;

/// A kubelet sends nine fields.
pub(super) const MAX_FIELDS: usize = 256;

/// The decoded size of a block as RFC 9113 §6.5.2 counts it. The server behind the adapter should
/// accept at most half of it: then h2 answers requests whose list is too long for the server only.
pub const MAX_HEADER_LIST_SIZE: usize = 32 << 10;

/// The size of the client's dynamic table, unless the server announces another (RFC 9113 §6.5.2).
const MAX_TABLE_SIZE: usize = 4_096;

/// The size of a field besides name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

const AUTHORITY: &[u8] = b":authority";
const LOCALHOST: &[u8] = b"localhost";

/// Rewrites the header blocks of one connection, in the order of their arrival.
pub(super) struct HeaderBlocks {
    decoder: Decoder<'static>,
    /// Buffer for one field.
    field: Vec<u8>,
}

impl HeaderBlocks {
    pub(super) fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(MAX_TABLE_SIZE);
        Self { decoder, field: Vec::new() }
    }

    /// Appends `block` to `output` with the authority replaced, at most [`MAX_HEADER_LIST_SIZE`]
    /// bytes of it.
    ///
    /// After an error the dynamic table is invalid, so the connection must end (RFC 7541 §2.2).
    pub(super) fn rewrite(&mut self, block: &[u8], output: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let mut fields = 0;
        let mut list_size = 0;
        for representation in Representations::new(block) {
            let representation = representation?;
            let bytes = without_huffman(&representation, &mut self.field)?;
            self.decoder.decode_with_cb(bytes, |name, value| {
                fields += 1;
                list_size += name.len() + value.len() + FIELD_OVERHEAD;
                if list_size <= MAX_HEADER_LIST_SIZE {
                    let value = if *name == *AUTHORITY { LOCALHOST } else { &value };
                    append_field(&name, value, representation.never_indexed, output);
                }
            })?;
            if fields > MAX_FIELDS {
                return Err(ConnectionError::TooManyFields);
            }
            if list_size > MAX_HEADER_LIST_SIZE {
                return Err(ConnectionError::ListTooLarge);
            }
        }
        // Frees the buffer, which may be as large as the largest value.
        self.field = Vec::new();
        Ok(())
    }
}

/// Appends a literal with a literal name, without indexing or never indexed (RFC 7541 §6.2.2,
/// §6.2.3).
///
/// It refers to no table, so the server's decoder has no state that could differ from the client's.
fn append_field(name: &[u8], value: &[u8], never_indexed: bool, output: &mut Vec<u8>) {
    output.push(if never_indexed { 0x10 } else { 0x00 });
    append_string(name, output);
    append_string(value, output);
}
