//! Frames, and passing them through the adapter: the helpers of all its tests.
//!
//! The output is decoded without a dynamic table, so that a field that refers to one fails. `wire`
//! has well-formed frames, `limits` malformed ones, `server` a real tonic server, `random` the
//! properties, `recorded` the requests of kubelets.

mod limits;
mod random;
mod recorded;
mod server;
mod wire;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loona_hpack::Decoder;
use tokio::io::{AsyncRead, ReadBuf};

use super::LocalhostAuthority;
use super::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, MAX_FRAME_SIZE, PREFACE};

const DATA: u8 = 0x0;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PUSH_PROMISE: u8 = 0x5;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const ACK: u8 = 0x1;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One frame, or one header block in the frames that carried it.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Block { stream: u32, end_stream: bool, fields: Fields },
    Frame { kind: u8, flags: u8, stream: u32, payload: Vec<u8> },
}

/// The output of the adapter, up to its end or error.
#[derive(Debug, PartialEq)]
struct Outcome {
    bytes: Vec<u8>,
    error: Option<String>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection: the preface and these frames.
fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE.to_vec(), frames.concat()].concat()
}

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("a hexadecimal constant")
}

fn fields(list: &[(&str, &str)]) -> Fields {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Literals without indexing; all lengths must be below 127.
fn literals(list: &[(&str, &str)]) -> Vec<u8> {
    let string = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    list.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

/// A stream that returns its bytes in pieces of the given sizes, repeatedly, and is pending once
/// before each.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
    ready: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ready = !self.ready;
        if self.ready {
            return Poll::Pending;
        }
        let size = self.sizes[self.turn % self.sizes.len()].min(output.remaining()).min(self.rest.len());
        self.turn += 1;
        output.put_slice(&self.rest[..size]);
        self.rest = &self.rest[size..];
        Poll::Ready(Ok(()))
    }
}

/// Sends `input` in pieces of these sizes to the adapter and reads it with buffers of these sizes.
fn pass_in(input: &[u8], pieces: &[usize], reads: &[usize]) -> Outcome {
    let mut adapter = LocalhostAuthority::new(Pieces { rest: input, sizes: pieces, turn: 0, ready: false });
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Vec::new();
    for turn in 0.. {
        let mut space = vec![0; reads[turn % reads.len()]];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut adapter).poll_read(&mut cx, &mut buffer) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Outcome { bytes, error: None },
            Poll::Ready(Ok(())) => bytes.extend(buffer.filled()),
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let again = Pin::new(&mut adapter).poll_read(&mut cx, &mut ReadBuf::new(&mut [0]));
                assert!(
                    matches!(again, Poll::Ready(Err(again)) if again.to_string() == error.to_string()),
                    "the error stays"
                );
                return Outcome { bytes, error: Some(error.to_string()) };
            }
        }
        assert!(adapter.unread.capacity() + adapter.rewriter.capacity() < 250 * 1024, "the documented bound holds");
    }
    unreachable!("the loop has no end")
}

fn pass(input: &[u8]) -> Outcome {
    pass_in(input, &[usize::MAX], &[8_192])
}

/// Passes these frames and reads what comes out.
fn pass_frames(frames: &[Vec<u8>]) -> Vec<Seen> {
    let outcome = pass(&connection(frames));
    assert_eq!(outcome.error, None);
    read_frames(outcome.bytes.strip_prefix(PREFACE).expect("the preface passes"))
}

/// The error that these frames end in, or nothing.
fn error_of(frames: &[Vec<u8>]) -> Option<String> {
    pass(&connection(frames)).error
}

/// Parses whole frames, and joins header blocks.
fn read_frames(mut bytes: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut open: Option<(u32, bool, Vec<u8>)> = None;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(length <= MAX_FRAME_SIZE);
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (&mut open, kind) {
            (None, HEADERS) => {
                assert_eq!(flags & !(END_STREAM | END_HEADERS), 0, "no padding and no priority");
                open = Some((stream, flags & END_STREAM != 0, payload.to_vec()));
            }
            (Some((block_stream, _, block)), CONTINUATION) if *block_stream == stream => {
                assert_eq!(flags & !END_HEADERS, 0, "CONTINUATION has one flag");
                block.extend(payload);
            }
            (None, _) => seen.push(Seen::Frame { kind, flags, stream, payload: payload.to_vec() }),
            (Some(_), _) => panic!("a header block is interrupted"),
        }
        if flags & END_HEADERS != 0
            && let Some((stream, end_stream, block)) = open.take()
        {
            let mut decoder = Decoder::new();
            decoder.set_max_table_size(0);
            seen.push(Seen::Block { stream, end_stream, fields: decoder.decode(&block).expect("our HPACK") });
        }
    }
    assert!(bytes.is_empty() && open.is_none(), "whole frames and blocks");
    seen
}
