//! The state of one connection's read side: which bytes pass, which are held back, and which take their place.
//!
//! Pure: bytes go in, bytes come out, and reading them is the caller's business. Frames other than HEADERS and
//! CONTINUATION pass without being looked at, also those that h2 will refuse (PUSH_PROMISE, a CONTINUATION without a
//! block).
//! A complete header block goes to [`super::headers`], and its replacement leaves in front of all that follows.

use tokio::io::ReadBuf;

use super::error::ConnectionError;
use super::frames::{self, FrameHead, HEAD_LENGTH};
use super::headers::HeaderBlocks;

/// The size of a header block before decoding, twice what the server accepts decoded; a kubelet's has some 200 bytes.
pub(super) const MAX_BLOCK_SIZE: usize = 32_768;

/// The CONTINUATION frames of one block: empty ones cost the client nothing and could follow each other for ever.
pub(super) const MAX_CONTINUATIONS: usize = 64;

/// What a buffer may keep between two blocks; a larger one is given back, since a connection may last for days.
const KEPT: usize = 4_096;

/// Rewrites what a client sends, in pieces of any size.
pub(super) struct Rewriter {
    state: State,
    block: Option<OpenBlock>,
    headers: HeaderBlocks,
    /// The fragments of the open block, as the client encoded them.
    fragments: Vec<u8>,
    /// The last block as we encoded it, not yet in frames.
    encoded: Vec<u8>,
    /// Bytes that the reader gets before anything else; those up to `delivered` it has.
    pending: Vec<u8>,
    delivered: usize,
}

enum State {
    /// Inside the client's preface, of which so many bytes have passed.
    Preface { passed: usize },
    /// The preface was another: HTTP/1 or garbage, for the server to refuse.
    Foreign,
    /// Inside a frame's header, of which so many bytes are held back.
    Head { bytes: [u8; HEAD_LENGTH], held: usize },
    /// Inside the payload of a frame that passes.
    Payload { left: usize },
    /// Inside the payload of a HEADERS or CONTINUATION frame.
    Fragment { head: FrameHead, left: usize },
    /// The client broke a rule; nothing passes any more.
    Failed(ConnectionError),
}

/// A header block whose END_HEADERS flag has not come.
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

    /// Moves bytes from `input` to `output` until one of them is used up, and returns how many of `input` were
    /// consumed.
    ///
    /// All of `input` is consumed if `output` has room left. After an error the result is always that error, once the
    /// bytes before it have been delivered.
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

    /// Notes that the client will send no more. If it stopped inside a frame that was held back, the frame's header is
    /// let go, so that the server sees a frame cut short, and not an orderly end.
    pub(super) fn finish(&mut self) {
        match &self.state {
            State::Head { bytes, held } => self.pending.extend_from_slice(&bytes[..*held]),
            State::Fragment { head, .. } => head.append_to(&mut self.pending),
            State::Preface { .. } | State::Foreign | State::Payload { .. } | State::Failed(_) => {}
        }
    }

    /// What the buffers have allocated, which is what a client can make us keep.
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

    /// Consumes bytes within the current state; there is at least one, and room for one.
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

    /// Ends a frame of the open block, and the block if the frame says so.
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

/// Empties a buffer, and gives it back if it is large.
fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
    }
}

/// Splits off at most `length` bytes at the front.
fn take<'a>(input: &mut &'a [u8], length: usize) -> &'a [u8] {
    let part;
    (part, *input) = input.split_at(length.min(input.len()));
    part
}
