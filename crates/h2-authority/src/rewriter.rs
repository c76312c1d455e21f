//! The read side of one connection as a state machine: passes bytes, holds back header blocks, and
//! replaces them.
//!
//! Pure: the caller reads and writes. Frames other than HEADERS and CONTINUATION pass unchecked,
//! including those that h2 refuses (PUSH_PROMISE, a CONTINUATION without a block). The replacement
//! of a complete header block precedes all later bytes.

use tokio::io::ReadBuf;

use super::error::ConnectionError;
use super::frames::{self, FrameHead, HEAD_LENGTH};
use super::headers::HeaderBlocks;

/// The size of a header block before decoding, twice the server's limit after decoding; a kubelet's
/// has some 200 bytes.
pub(super) const MAX_BLOCK_SIZE: usize = 32_768;

/// The CONTINUATION frames of one block: empty ones cost the client nothing, and their number would
/// have no limit.
pub(super) const MAX_CONTINUATIONS: usize = 64;

/// The capacity of a buffer between two blocks; a larger buffer is freed, since a connection may
/// last for days.
const IDLE_CAPACITY: usize = 4_096;

/// Rewrites the bytes of a client, in pieces of any size.
pub(super) struct Rewriter {
    state: State,
    block: Option<OpenBlock>,
    headers: HeaderBlocks,
    /// The fragments of the open block, as the client encoded them.
    fragments: Vec<u8>,
    /// The rewritten block, before it is put into frames.
    encoded: Vec<u8>,
    /// Bytes that precede all other output; the reader has received those up to `delivered`.
    pending: Vec<u8>,
    delivered: usize,
}

enum State {
    /// Inside the client's preface.
    Preface { passed: usize },
    /// The preface was different: HTTP/1 or garbage, which the server refuses.
    Foreign,
    /// Inside a frame's header, which is held back until it is complete.
    Head { bytes: [u8; HEAD_LENGTH], held: usize },
    /// Inside the payload of a frame that passes.
    Payload { left: usize },
    /// Inside the payload of a HEADERS or CONTINUATION frame.
    Fragment { head: FrameHead, left: usize },
    /// The client broke a rule; no more bytes pass.
    Failed(ConnectionError),
}

/// A header block without END_HEADERS so far.
struct OpenBlock {
    stream: u32,
    end_stream: bool,
    continuations: usize,
}

const AT_FRAME_START: State = State::Head { bytes: [0; HEAD_LENGTH], held: 0 };

impl Rewriter {
    pub(super) fn new() -> Self {
        Self {
            state: State::Preface { passed: 0 },
            block: None,
            headers: HeaderBlocks::new(),
            fragments: Vec::new(),
            encoded: Vec::new(),
            pending: Vec::new(),
            delivered: 0,
        }
    }

    /// Moves bytes from `input` to `output` until one of them is exhausted, and returns the number
    /// of consumed bytes.
    ///
    /// Consumes all of `input` if `output` has room left. After an error, and after the bytes
    /// before it are delivered, the result is always that error.
    pub(super) fn rewrite(&mut self, input: &[u8], output: &mut ReadBuf<'_>) -> Result<usize, ConnectionError> {
        let mut rest = input;
        loop {
            self.deliver(output);
            if output.remaining() == 0 {
                break;
            }
            if let State::Failed(error) = self.state {
                return Err(error);
            }
            if rest.is_empty() {
                break;
            }
            if let Err(error) = self.step(&mut rest, output) {
                self.state = State::Failed(error);
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Handles the end of the client's stream. If it is inside a frame that is held back, the
    /// frame's header passes, so that the server sees a truncated frame and not a clean end.
    pub(super) fn finish(&mut self) {
        match &self.state {
            State::Head { bytes, held } => self.pending.extend_from_slice(&bytes[..*held]),
            State::Fragment { head, .. } => head.append_to(&mut self.pending),
            State::Preface { .. } | State::Foreign | State::Payload { .. } | State::Failed(_) => {}
        }
    }

    /// The capacity of the buffers, which is the memory that a client can occupy.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.fragments.capacity() + self.encoded.capacity() + self.pending.capacity()
    }

    fn deliver(&mut self, output: &mut ReadBuf<'_>) {
        let undelivered = &self.pending[self.delivered..];
        let length = undelivered.len().min(output.remaining());
        output.put_slice(&undelivered[..length]);
        self.delivered += length;
        if self.delivered == self.pending.len() {
            empty(&mut self.pending);
            self.delivered = 0;
        }
    }

    /// Consumes bytes in the current state; requires at least one byte of input and of room.
    fn step(&mut self, input: &mut &[u8], output: &mut ReadBuf<'_>) -> Result<(), ConnectionError> {
        match &mut self.state {
            State::Preface { passed } => {
                let expected = &frames::PREFACE[*passed..];
                let length = expected.len().min(input.len()).min(output.remaining());
                if input[..length] != expected[..length] {
                    self.state = State::Foreign;
                    return Ok(());
                }
                output.put_slice(take(input, length));
                *passed += length;
                if *passed == frames::PREFACE.len() {
                    self.state = AT_FRAME_START;
                }
            }
            State::Foreign => output.put_slice(take(input, output.remaining())),
            State::Head { bytes, held } => {
                let part = take(input, HEAD_LENGTH - *held);
                bytes[*held..*held + part.len()].copy_from_slice(part);
                *held += part.len();
                if *held == HEAD_LENGTH {
                    let bytes = *bytes;
                    self.begin_frame(bytes)?;
                }
            }
            State::Payload { left } => {
                let part = take(input, output.remaining().min(*left));
                output.put_slice(part);
                *left -= part.len();
                if *left == 0 {
                    self.state = AT_FRAME_START;
                }
            }
            State::Fragment { head, left } => {
                let part = take(input, *left);
                self.fragments.extend_from_slice(part);
                *left -= part.len();
                if *left == 0 {
                    let head = *head;
                    self.end_fragment(&head)?;
                }
            }
            State::Failed(error) => return Err(*error),
        }
        Ok(())
    }

    /// Decides from a frame's header whether the frame passes or belongs to a header block.
    fn begin_frame(&mut self, bytes: [u8; HEAD_LENGTH]) -> Result<(), ConnectionError> {
        let head = FrameHead::parse(bytes);
        if head.length > frames::MAX_FRAME_SIZE {
            return Err(ConnectionError::FrameTooLarge);
        }
        match (&mut self.block, head.kind) {
            (None, frames::HEADERS) => {
                let end_stream = head.has(frames::END_STREAM);
                self.block = Some(OpenBlock { stream: head.stream, end_stream, continuations: 0 });
                self.fragments.clear();
            }
            (None, _) => {
                self.pending.extend_from_slice(&bytes);
                self.state = match head.length {
                    0 => AT_FRAME_START,
                    left => State::Payload { left },
                };
                return Ok(());
            }
            (Some(block), frames::CONTINUATION) if head.stream == block.stream => {
                block.continuations += 1;
                if block.continuations > MAX_CONTINUATIONS {
                    return Err(ConnectionError::TooManyContinuations);
                }
            }
            (Some(_), _) => return Err(ConnectionError::BlockInterrupted),
        }
        if self.fragments.len() + head.length > MAX_BLOCK_SIZE {
            return Err(ConnectionError::BlockTooLarge);
        }
        if head.length == 0 {
            return self.end_fragment(&head);
        }
        self.state = State::Fragment { head, left: head.length };
        Ok(())
    }

    /// Completes a frame of the open block, and the block if the frame has END_HEADERS.
    fn end_fragment(&mut self, head: &FrameHead) -> Result<(), ConnectionError> {
        self.state = AT_FRAME_START;
        if head.kind == frames::HEADERS {
            let fragment = frames::fragment_of(head, &self.fragments)?;
            self.fragments.truncate(fragment.end);
            self.fragments.drain(..fragment.start);
        }
        if !head.has(frames::END_HEADERS) {
            return Ok(());
        }
        if let Some(block) = self.block.take() {
            self.encoded.clear();
            self.headers.rewrite(&self.fragments, &mut self.encoded)?;
            frames::append_header_block(block.stream, block.end_stream, &self.encoded, &mut self.pending);
            empty(&mut self.fragments);
            empty(&mut self.encoded);
        }
        Ok(())
    }
}

/// Empties a buffer, and frees it if it is large.
fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > IDLE_CAPACITY {
        *buffer = Vec::new();
    }
}

/// Splits off at most `length` bytes from the front.
fn take<'a>(input: &mut &'a [u8], length: usize) -> &'a [u8] {
    let part;
    (part, *input) = input.split_at(length.min(input.len()));
    part
}
