//! The limits that all our gRPC servers have.
//!
//! Adds no service and listens nowhere; `csi` and `plugin` do. What belongs to all connections together is in `places`.

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use super::arrivals::Arrivals;

/// How many streams one connection may have open. A kubelet has one, a driver one for each pod that starts.
const STREAMS: u32 = 64;

/// How large the headers of one call may be together (RFC 9113 §6.5.2): half of what the adapter in front decodes, so
/// that h2 answers a request with too many. A kubelet sends some 300 bytes.
const HEADERS: u32 = (h2_authority::MAX_HEADER_LIST_SIZE / 2) as u32;

/// How much of a request may come before it is read: for one stream, and for all of a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

/// How many streams a client may open and reset before they were looked at, and how many it may make us reset, until
/// its connection is closed.
const RESETS: usize = 64;

/// A peer that has gone without a word is noticed after this time, and twenty seconds.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What a message may have; gRPC's default, and upstream's.
pub(crate) const MESSAGE: usize = 4 << 20;

/// A server with these limits.
pub(crate) fn server() -> Server<Stack<Arrivals, Identity>> {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .concurrency_limit_per_connection(STREAMS as usize)
        .http2_max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_local_error_reset_streams(Some(RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(Arrivals)
}
