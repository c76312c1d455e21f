//! An adapter in front of an HTTP/2 server that rewrites the `:authority` of every request to
//! `localhost`.
//!
//! A gRPC client that dials a Unix socket by its path sends the path as `:authority`, unencoded or
//! percent-encoded, depending on its library; kubelets do so on the registration socket. RFC 9113
//! §8.3.1 requires an authority there, so h2 resets the stream with PROTOCOL_ERROR before any
//! handler runs. Delete this crate when h2 accepts such a value or leaves the decision to the
//! server (hyperium/h2#487).
//!
//! [`LocalhostAuthority`] wraps an accepted stream, and the server reads from it. The adapter
//! changes that one header of incoming requests: it validates no request, reads no response, and
//! leaves to h2 what h2 refuses.
//!
//! # Assumptions
//!
//! The server behind it keeps the defaults of SETTINGS_MAX_FRAME_SIZE (16,384) and
//! SETTINGS_HEADER_TABLE_SIZE (4,096): the adapter decodes with these values and does not read the
//! server's SETTINGS.

mod error;
mod frames;
mod headers;
mod huffman;
mod representations;
mod rewriter;

#[cfg(test)]
mod tests;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

pub use self::headers::MAX_HEADER_LIST_SIZE;

use self::rewriter::Rewriter;

/// The limit of one read from the stream. Most requests are smaller.
const INPUT_SIZE: usize = 4_096;

/// A server's connection whose requests all arrive with `:authority: localhost`.
///
/// Wrap each accepted stream before passing it to tonic. Writing, flushing, shutting down and the
/// connect info are those of the stream. A request without `:authority` stays without; a connection
/// that is not HTTP/2 passes unchanged.
///
/// # Limits
///
/// A frame carries at most 16,384 bytes (RFC 9113 §4.2). A header block has at most 32,768 bytes
/// before decoding, 64 CONTINUATION frames, 256 fields, and 32,768 bytes decoded as RFC 9113 §6.5.2
/// counts them. The client's dynamic table has at most 4,096 bytes (RFC 7541 §4.2). Payloads of
/// other frames pass without being collected, so a connection holds less than 20 KiB between two
/// blocks, and less than 250 KiB within a block of the largest size.
///
/// # Errors
///
/// A read fails with [`io::ErrorKind::InvalidData`] when a limit is exceeded, when a header block
/// is interrupted by another frame (RFC 9113 §6.10), when padding does not fit its frame (§6.2) or
/// when HPACK is malformed (RFC 7541). The text names the rule and contains no byte of the
/// connection. Every later read fails with the same error.
pub struct LocalhostAuthority<S> {
    stream: S,
    rewriter: Rewriter,
    /// Input that did not fit into the reader's buffer; usually empty.
    unread: Vec<u8>,
    at_end: bool,
}

impl<S> LocalhostAuthority<S> {
    /// Wraps a stream. The caller must not have read from it: the first bytes must be the client's
    /// preface.
    pub fn new(stream: S) -> Self {
        Self { stream, rewriter: Rewriter::new(), unread: Vec::new(), at_end: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LocalhostAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = output.filled().len();
        // On the stack, so that an idle connection holds no buffer.
        let mut space = [MaybeUninit::uninit(); INPUT_SIZE];
        let mut input = ReadBuf::uninit(&mut space);
        input.put_slice(&this.unread);
        let mut consumed = 0;
        while output.remaining() > 0 {
            let outcome = this.rewriter.rewrite(&input.filled()[consumed..], output);
            if let Ok(count) = outcome {
                consumed += count;
            }
            // Delivers the bytes before an error first; the rewriter repeats the error at the next
            // call.
            if output.filled().len() > before {
                break;
            }
            outcome.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if this.at_end {
                break;
            }
            // There is no output although there was room, so all input is consumed and may be
            // overwritten.
            (this.unread, consumed) = (Vec::new(), 0);
            input.clear();
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                this.rewriter.finish();
                this.at_end = true;
            }
        }
        this.unread = input.filled()[consumed..].to_vec();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LocalhostAuthority<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for LocalhostAuthority<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
