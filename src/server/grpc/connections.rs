//! The connections of a Unix socket, each with its `:authority` rewritten, since kubelets and older drivers send what
//! h2 refuses.
//!
//! Accepts for as long as somebody asks, and has `places` decide who stays; a failed accept is told and waited out.
//! tonic's servers read what comes out.

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

use super::places::{Place, Places};
use crate::server::telemetry::key;

/// How long is waited after a failed accept: descriptors have run out, and trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, at most `room` at once, each with its `:authority` rewritten.
///
/// # Errors
/// The listener cannot be used.
pub(crate) fn connections(
    listener: UnixListener,
    room: usize,
) -> io::Result<impl Stream<Item = io::Result<PlacedConnection<LocalhostAuthority<UnixStream>>>>> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Places::new(room);
    let accepted = UnixListenerStream::new(listener).then(move |accepted| admit(accepted, places.clone()));
    Ok(accepted.filter_map(Result::transpose))
}

/// The connection with its place; nothing where it is turned away.
async fn admit(
    accepted: io::Result<UnixStream>,
    places: Places,
) -> io::Result<Option<PlacedConnection<LocalhostAuthority<UnixStream>>>> {
    match accepted {
        Ok(stream) => {
            // So that what was closed to make room is closed, and what has come was read, before the next one is
            // accepted.
            tokio::task::yield_now().await;
            let place = places.enter(is_own(&stream));
            Ok(place.map(|place| PlacedConnection { stream: LocalhostAuthority::new(stream), place }))
        }
        Err(error) => {
            warn!({ key::ERROR } = %error, "cannot accept a connection");
            places.yield_one();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            Err(error)
        }
    }
}

/// Whether this process is at the other end: it asks itself for a sign of life.
fn is_own(stream: &UnixStream) -> bool {
    let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
    peer.and_then(|id| u32::try_from(id).ok()) == Some(std::process::id())
}

/// A connection that ends when its place is another's.
#[derive(Debug)]
pub(crate) struct PlacedConnection<S> {
    stream: S,
    place: Place,
}

/// Whose a request is, for `arrivals`.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(super) Place);

impl<S> PlacedConnection<S> {
    fn ended(&self, cx: &Context<'_>) -> io::Result<()> {
        match self.place.is_closed(cx) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection's place is another's")),
            false => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlacedConnection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, output)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlacedConnection<S> {
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

impl<S> Connected for PlacedConnection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.place.clone())
    }
}
