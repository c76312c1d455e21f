//! Decodes HPACK header blocks, replaces `:authority`, and encodes them again (RFC 7541).
//!
//! Pure but for the client's dynamic table, which lives as long as the connection; it does not judge names, values or
//! their order.
//! [`super::rewriter`] hands in whole blocks and puts the result into frames.
//!
//! The decoder is loona-hpack 0.4.3, because of three candidates it alone does not panic on hostile bytes: its integers
//! end at 5 octets, every slice is checked, its Huffman code is complete and prefix-free, so that no symbol exceeds 30
//! bits, and table size updates are held to the limit it is given. httlib-hpack 0.1.3 indexes past the end of `ff` and
//! `40`, and fluke-hpack 0.3.1, its ancestor, unwraps an error at `3f`. What it lacks, `representations` and `huffman` add.

use loona_hpack::Decoder;

use super::error::ConnectionError;
use super::huffman::{append_string, written_out};
use super::representations::Representations;

/// A kubelet sends nine fields.
pub(super) const MAX_FIELDS: usize = 256;

/// The decoded size of a block as RFC 9113 §6.5.2 counts it. A server behind the adapter should accept half of it at
/// most, so that h2 answers requests whose list is only too long for the server.
pub const MAX_HEADER_LIST_SIZE: usize = 32 << 10;

/// The dynamic table that the client may use while the server announces nothing else (RFC 9113 §6.5.2).
const MAX_TABLE_SIZE: usize = 4_096;

/// What a field costs beyond name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

const AUTHORITY: &[u8] = b":authority";
const LOCALHOST: &[u8] = b"localhost";

/// The header blocks of one connection, in the order in which they arrive.
pub(super) struct HeaderBlocks {
    decoder: Decoder<'static>,
    /// Room for one field.
    field: Vec<u8>,
}

impl HeaderBlocks {
    pub(super) fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(MAX_TABLE_SIZE);
        Self { decoder, field: Vec::new() }
    }

    /// Appends `block` to `output` with the authority replaced, at most [`MAX_HEADER_LIST_SIZE`] bytes of it.
    ///
    /// After an error the dynamic table is of no more use, and neither is the connection (RFC 7541 §2.2).
    pub(super) fn rewrite(&mut self, block: &[u8], output: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let mut fields = 0;
        let mut list_size = 0;
        for representation in Representations::new(block) {
            let representation = representation?;
            let bytes = written_out(&representation, &mut self.field)?;
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
        // It may have held a value of the largest size.
        self.field = Vec::new();
        Ok(())
    }
}

/// Appends a literal with a literal name, without indexing or never indexed (RFC 7541 §6.2.2, §6.2.3).
///
/// It refers to no table, so the server's decoder needs no state and cannot get out of step with the client.
fn append_field(name: &[u8], value: &[u8], never_indexed: bool, output: &mut Vec<u8>) {
    output.push(if never_indexed { 0x10 } else { 0x00 });
    append_string(name, output);
    append_string(value, output);
}
