//! Errors that end a connection: one variant for each rule that a client can break.
//!
//! The texts contain no byte from the client, because header values may be secrets.
//! [`super::LocalhostAuthority`] converts an error to an `io::Error`, and the server closes the
//! connection.

use loona_hpack::decoder::DecoderError;

/// A connection error in the sense of RFC 9113 §5.4.1.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(super) enum ConnectionError {
    /// RFC 9113 §4.2.
    #[error("an HTTP/2 frame is larger than 16384 bytes")]
    FrameTooLarge,
    /// RFC 9113 §6.2 and §6.10.
    #[error("an HTTP/2 header block is interrupted by another frame")]
    BlockInterrupted,
    /// RFC 9113 §6.2.
    #[error("the padding or priority of an HTTP/2 HEADERS frame does not fit into it")]
    PaddingTooLong,
    /// Our limit, see [`super::rewriter::MAX_BLOCK_SIZE`].
    #[error("an HTTP/2 header block is larger than 32768 bytes")]
    BlockTooLarge,
    /// Our limit, see [`super::rewriter::MAX_CONTINUATIONS`].
    #[error("an HTTP/2 header block has more than 64 CONTINUATION frames")]
    TooManyContinuations,
    /// Our limit, see [`super::headers::MAX_FIELDS`].
    #[error("an HTTP/2 header block has more than 256 fields")]
    TooManyFields,
    /// Our limit, see [`super::headers::MAX_HEADER_LIST_SIZE`].
    #[error("an HTTP/2 header block is larger than 32768 bytes when decoded")]
    ListTooLarge,
    /// RFC 7541 §6.
    #[error("an HPACK header block ends inside a field")]
    FieldTruncated,
    /// RFC 7541 §5.1.
    #[error("an HPACK integer is longer than 5 octets")]
    IntegerTooLong,
    /// RFC 7541 §4.2.
    #[error("an HPACK table size update is not at the start of its header block")]
    SizeUpdateMisplaced,
    /// RFC 7541: an error of the decoder, whose texts only name rules.
    #[error("an HPACK header block does not decode: {0}")]
    Undecodable(#[from] DecoderError),
}
