//! A connection to a Unix socket that speaks gRPC, with `localhost` as the authority.
//!
//! Made for one use; whoever keeps it keeps the connection.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How much a reply's headers may have: a status with its text is among them, and others' texts are long. Beyond it the text is
/// lost, and the call looks like a broken connection.
const HEADERS: u32 = 1 << 20;

/// How long a queue of the listener that is full may stay so, and the pause between two tries.
const FULL: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Connects to `socket`.
///
/// # Errors
/// Nobody accepts there.
pub(crate) async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { enter(&socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost").http2_max_header_list_size(HEADERS);
    endpoint.connect_with_connector(connect).await
}

/// Connects; waits for a place in the listener's queue, for which the system does not wait.
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
