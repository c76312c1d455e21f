//! Accepts the connections of a Unix socket, and rewrites the `:authority` of their requests:
//! kubelets and older drivers send values that h2 rejects.
//!
//! `connection_limits` decides which connections stay. A failed accept is logged and retried.

use std::io;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2_authority::LocalhostAuthority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;
use tracing::warn;

use super::connection_limits::{Slot, Slots};
use crate::server::telemetry::key;

/// The pause after a failed accept: the process has no free descriptor, and an immediate retry
/// would only use CPU time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, at most `limit` at once, each with its `:authority` rewritten.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub(crate) fn connections(
    listener: UnixListener,
    limit: usize,
) -> io::Result<impl Stream<Item = io::Result<SlottedConnection<LocalhostAuthority<UnixStream>>>>> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let slots = Slots::new(limit);
    let accepted = UnixListenerStream::new(listener).then(move |accepted| admit(accepted, slots.clone()));
    Ok(accepted.filter_map(Result::transpose))
}

/// The connection with its slot; `None` if it is rejected.
async fn admit(
    accepted: io::Result<UnixStream>,
    slots: Slots,
) -> io::Result<Option<SlottedConnection<LocalhostAuthority<UnixStream>>>> {
    match accepted {
        Ok(stream) => {
            // So that connections closed to make limit are gone, and requests that arrived are
            // read, before the next accept.
            tokio::task::yield_now().await;
            let slot = slots.acquire(is_own(&stream));
            Ok(slot.map(|slot| SlottedConnection { stream: LocalhostAuthority::new(stream), slot }))
        }
        Err(error) => {
            warn!({ key::ERROR } = %error, "cannot accept a connection");
            slots.close_idle();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            Err(error)
        }
    }
}

/// Whether this process is the peer: the health check calls its own socket.
fn is_own(stream: &UnixStream) -> bool {
    let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
    peer.and_then(|id| u32::try_from(id).ok()) == Some(std::process::id())
}

/// A connection that fails once its slot is revoked.
#[derive(Debug)]
pub(crate) struct SlottedConnection<S> {
    stream: S,
    slot: Slot,
}

/// The connection of a request, for `request_collector`.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(super) Slot);

impl<S> SlottedConnection<S> {
    fn ended(&self, cx: &Context<'_>) -> io::Result<()> {
        match self.slot.is_closed(cx) {
            true => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was closed to make room for another",
            )),
            false => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SlottedConnection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, output)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SlottedConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> Connected for SlottedConnection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.slot.clone())
    }
}
