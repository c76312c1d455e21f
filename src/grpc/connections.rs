//! The connections of a Unix socket, each with its `:authority` rewritten, since kubelets and older drivers send what h2 refuses.
//!
//! Accepts for as long as somebody asks; a failed accept is told and waited out. tonic's servers read what comes out.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tracing::warn;

use super::authority::LocalhostAuthority;
use crate::telemetry::key;

/// How long is waited after a failed accept: descriptors have run out, and trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, each with its `:authority` rewritten.
///
/// # Errors
/// The listener cannot be used.
pub(crate) fn connections(
    listener: UnixListener,
) -> io::Result<impl Stream<Item = io::Result<LocalhostAuthority<UnixStream>>>> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    Ok(UnixListenerStream::new(listener).then(async |accepted| {
        if let Err(error) = &accepted {
            warn!({ key::ERROR } = %error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted.map(LocalhostAuthority::new)
    }))
}
