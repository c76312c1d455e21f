//! The layout of HTTP/2 frames that carry header blocks (RFC 9113 §4.1, §6.2, §6.10).
//!
//! Pure. Does not interpret the payload of other frames.

use std::ops::Range;

use super::error::ConnectionError;

/// The first bytes of every client (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header (RFC 9113 §4.1).
pub(super) const HEAD_LENGTH: usize = 9;

/// The payload of a frame, unless the server announces a larger size (RFC 9113 §4.2, §6.5.2).
pub(super) const MAX_FRAME_SIZE: usize = 16_384;

pub(super) const HEADERS: u8 = 0x1;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// A frame's header, without its reserved bit (RFC 9113 §4.1).
#[derive(Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    pub(super) fn parse(bytes: [u8; HEAD_LENGTH]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends the nine bytes. The length has 24 bits; the caller's frames have at most
    /// [`MAX_FRAME_SIZE`].
    pub(super) fn append_to(&self, output: &mut Vec<u8>) {
        let length = (self.length as u32).to_be_bytes();
        output.extend_from_slice(&length[1..]);
        output.extend_from_slice(&[self.kind, self.flags]);
        output.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// Finds the fragment of the header block in the payload of a HEADERS frame: after the pad length
/// and the priority fields, before the padding (RFC 9113 §6.2).
pub(super) fn fragment_of(head: &FrameHead, payload: &[u8]) -> Result<Range<usize>, ConnectionError> {
    let mut start = 0;
    let mut padding = 0;
    if head.has(PADDED) {
        padding = usize::from(*payload.first().ok_or(ConnectionError::PaddingTooLong)?);
        start += 1;
    }
    if head.has(PRIORITY) {
        start += 5;
    }
    if start + padding > payload.len() {
        return Err(ConnectionError::PaddingTooLong);
    }
    Ok(start..payload.len() - padding)
}

/// Appends a header block as one HEADERS frame and, if necessary, CONTINUATION frames.
pub(super) fn append_header_block(stream: u32, end_stream: bool, block: &[u8], output: &mut Vec<u8>) {
    let mut kind = HEADERS;
    let mut flags = if end_stream { END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let fragment;
        (fragment, rest) = rest.split_at(rest.len().min(MAX_FRAME_SIZE));
        if rest.is_empty() {
            flags |= END_HEADERS;
        }
        let head = FrameHead { length: fragment.len(), kind, flags, stream };
        head.append_to(output);
        output.extend_from_slice(fragment);
        if rest.is_empty() {
            return;
        }
        kind = CONTINUATION;
        flags = 0;
    }
}
