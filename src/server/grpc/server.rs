//! The limits of one connection, the same for every gRPC server of the program.
//!
//! `connection_limits` has those of all connections of a socket.

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use super::request_collector::CollectRequestsLayer;

/// How many streams one connection may have open. A kubelet uses one, a driver one for each
/// starting pod.
const STREAMS: u32 = 64;

/// How large the headers of one call may be (RFC 9113 §6.5.2): half of what the adapter in front
/// decodes, so that h2 answers a request with too many. A kubelet sends some 300 bytes.
const HEADERS: u32 = (h2_authority::MAX_HEADER_LIST_SIZE / 2) as u32;

/// How much of a request h2 buffers: for one stream, and for all streams of a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// How many streams a client may open and reset before they are read, and how many it may make us
/// reset, before its connection is closed.
const RESETS: usize = 64;

/// After this time, and twenty seconds, a peer that vanished is noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A server with these limits.
pub(crate) fn server() -> Server<Stack<CollectRequestsLayer, Identity>> {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .concurrency_limit_per_connection(STREAMS as usize)
        .http2_max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_local_error_reset_streams(Some(RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(CollectRequestsLayer)
}
