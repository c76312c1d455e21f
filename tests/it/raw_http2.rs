//! An HTTP/2 client without any rule but the layout of frames (RFC 9113 §4.1): a test decides which
//! frames it sends and leaves out.
//!
//! Builds frames by hand, since client libraries refuse to send what a hostile client would.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const CONTINUATION: u8 = 0x9;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

/// How long a test waits for the server.
const PATIENCE: Duration = Duration::from_secs(30);

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Returns the error code of a RST_STREAM (§6.4) or GOAWAY (§6.8).
    pub(crate) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// A connection that reads only when a test calls a reading method.
#[derive(Debug)]
pub(crate) struct RawHttp2 {
    stream: UnixStream,
    unread: Vec<u8>,
    next: u32,
}

/// Returns a frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a call's header block without Huffman code and without the dynamic table (RFC 7541
/// §6.2.2).
pub(crate) fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits (§5.1).
            match u8::try_from(text.len()).ok().filter(|length| *length < 127) {
                Some(length) => block.push(length),
                None => {
                    block.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

impl RawHttp2 {
    /// Connects and sends nothing.
    pub(crate) fn silent(socket: &Path) -> Result<RawHttp2> {
        let began = Instant::now();
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Ok(RawHttp2 { stream, unread: Vec::new(), next: 1 }),
                // The listener's queue is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < PATIENCE => {
                    std::thread::yield_now();
                }
                Err(error) => return Err(error).context("the socket does not accept"),
            }
        }
    }

    /// Connects and sends the preface and empty SETTINGS (RFC 9113 §3.4).
    pub(crate) fn connect(socket: &Path) -> Result<RawHttp2> {
        let mut client = RawHttp2::silent(socket)?;
        client.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat())?;
        Ok(client)
    }

    /// Sends bytes; waits while the server reads nothing.
    ///
    /// # Errors
    /// The server has closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// Opens a stream with this header block, and returns its number.
    pub(crate) fn open(&mut self, block: &[u8], flags: u8) -> Result<u32> {
        let stream = self.next;
        self.next += 2;
        self.send(&frame(HEADERS, END_HEADERS | flags, stream, block))?;
        Ok(stream)
    }

    /// Returns the frames that have arrived, without waiting.
    pub(crate) fn received(&mut self) -> Result<Vec<Frame>> {
        self.stream.set_nonblocking(true)?;
        let mut space = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut space) {
                Ok(0) => break,
                Ok(read) => self.unread.extend_from_slice(&space[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.set_nonblocking(false)?;
        Ok(self.frames())
    }

    fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = self.unread.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if rest.len() < length {
                break;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push(Frame { kind: head[3], flags: head[4], stream, payload: rest[..length].to_vec() });
            self.unread.drain(..9 + length);
        }
        frames
    }

    /// Reads until a `wanted` frame arrives.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let began = Instant::now();
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let mut space = vec![0; 64 << 10];
        loop {
            if let Some(frame) = self.frames().into_iter().find(|frame| wanted(frame)) {
                return Ok(frame);
            }
            let read = self.stream.read(&mut space)?;
            ensure!(read > 0, "the server closed the connection");
            ensure!(began.elapsed() < PATIENCE, "no such frame within {PATIENCE:?}");
            self.unread.extend_from_slice(&space[..read]);
        }
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> Result<bool> {
        self.stream.set_nonblocking(true)?;
        let read = self.stream.read(&mut [0; 64 << 10]);
        self.stream.set_nonblocking(false)?;
        Ok(match read {
            Ok(read) => read == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        })
    }
}
