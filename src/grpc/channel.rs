//! A connection to a Unix socket that speaks gRPC, with `localhost` as the authority.
//!
//! Made for one use; whoever keeps it keeps the connection.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How much a reply's headers may have: a status with its text is among them, and others' texts are long. Beyond it the text is
/// lost, and the call looks like a broken connection.
const HEADERS: u32 = 1 << 20;

/// Connects to `socket`.
///
/// # Errors
/// Nobody accepts there.
pub(crate) async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost").http2_max_header_list_size(HEADERS);
    endpoint.connect_with_connector(connect).await
}
