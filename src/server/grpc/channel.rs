//! A gRPC client connection to a Unix socket, with `localhost` as the authority.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How large the headers of a reply may be. They include the status with its text, and the texts of
/// other providers are long; with a smaller limit the call would look like a broken connection.
const HEADERS: u32 = 1 << 20;

/// How long to retry while the listener's queue is full, and the pause between two tries.
const FULL: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Connects to `socket`.
///
/// # Errors
/// No process listens on the socket.
pub(crate) async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { enter(&socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost").http2_max_header_list_size(HEADERS);
    endpoint.connect_with_connector(connect).await
}

/// Connects. A full listen queue fails a non-blocking connect at once, so it is retried.
async fn enter(socket: &Path) -> io::Result<UnixStream> {
    let began = tokio::time::Instant::now();
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && began.elapsed() < FULL => {
                tokio::time::sleep(PAUSE).await;
            }
            connected => return connected,
        }
    }
}
