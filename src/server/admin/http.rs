//! The HTTP server of health and metrics: one request for each connection, within fixed limits.
//!
//! Every client that reaches the address may connect, so the server enforces all limits itself.
//! `health` and `page` bring the routers.
//!
//! # Guarantees
//! A connection whose request head is incomplete after [`HEAD`], or whose client does not read the
//! response within [`TAKE`], is closed. There are never more connections than slots. A new
//! connection always gets one: the oldest connection without a complete request is closed for it,
//! so that silent and slow clients keep no other client out.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long the head of a request may take, from the moment the connection is accepted.
const HEAD: Duration = Duration::from_secs(1);

/// How long a client may take to read the response.
const TAKE: Duration = Duration::from_secs(5);

/// The largest head, in bytes; hyper has no smaller buffer.
const HEAD_SIZE: usize = 8 << 10;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The request is incomplete.
    Head,
    /// The handler runs.
    Handler,
    /// The client reads the response.
    Response,
}

/// A connection as the accept loop sees it.
#[derive(Debug)]
struct Connection {
    stage: watch::Sender<Stage>,
    /// Cancelled when another connection takes the slot.
    revoked: CancellationToken,
}

/// The connection slots of one listener.
#[derive(Debug)]
struct Slots {
    limit: usize,
    /// By age: the numbers ascend.
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// The slot of one connection; released when dropped.
#[derive(Debug)]
struct Slot {
    number: u64,
    connection: Arc<Connection>,
    slots: Arc<Slots>,
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// A slot for connection `number`. If none is free, closes the oldest connection without a
    /// complete request, or the oldest one if all are complete.
    fn take(slots: &Arc<Slots>, number: u64) -> Slot {
        let connection =
            Arc::new(Connection { stage: watch::Sender::new(Stage::Head), revoked: CancellationToken::new() });
        let mut open = slots.lock();
        if open.len() >= slots.limit {
            let incomplete = open.iter().find(|(_, one)| *one.stage.borrow() == Stage::Head);
            let oldest = incomplete.or_else(|| open.iter().next()).map(|(number, _)| *number);
            if let Some(one) = oldest.and_then(|number| open.remove(&number)) {
                one.revoked.cancel();
            }
        }
        open.insert(number, Arc::clone(&connection));
        Slot { number, connection, slots: Arc::clone(slots) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(&self.number);
    }
}

/// Accepts connections until `stop` is done; at most `limit` are open at once.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limit: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let slots = Arc::new(Slots { limit: limit.max(1), open: Mutex::default() });
    tokio::pin!(stop);
    for number in 0.. {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let Ok((stream, _)) = accepted else {
            // The process has no free descriptor; an immediate retry would only use CPU time.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        tokio::spawn(serve_connection(stream, router.clone(), Slot::take(&slots, number)));
        // So that a request that has arrived is read before a later connection may take its slot.
        tokio::task::yield_now().await;
    }
}

/// Serves one connection until it is done, its time is over, or another connection takes its slot.
async fn serve_connection(stream: TcpStream, router: Router, slot: Slot) {
    let connection = &slot.connection;
    let respond = |request: Request<Incoming>| {
        connection.stage.send_replace(Stage::Handler);
        let response = router.clone().oneshot(request.map(Body::new));
        async move {
            let response = response.await;
            connection.stage.send_replace(Stage::Response);
            response
        }
    };
    let http = async {
        // A silent client costs no buffer. Protocol errors of a client are its own.
        if stream.readable().await.is_ok() {
            let mut server = http1::Builder::new();
            server.keep_alive(false).max_buf_size(HEAD_SIZE);
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(respond)).await;
        }
    };
    tokio::select! {
        () = http => {}
        () = client_is_too_slow(connection) => {}
        () = connection.revoked.cancelled() => {}
    }
}

/// Completes when the client was too slow. The handler bounds its own time.
async fn client_is_too_slow(connection: &Connection) {
    let mut stage = connection.stage.subscribe();
    if timeout(HEAD, stage.wait_for(|stage| *stage > Stage::Head)).await.is_ok() {
        // The sender lives as long as the connection.
        let _ = stage.wait_for(|stage| *stage > Stage::Handler).await;
        sleep(TAKE).await;
    }
}
