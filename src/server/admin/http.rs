//! The HTTP server of health and metrics: one request a connection, within limits that no client can stretch.
//!
//! Whoever reaches the address may connect, so that nothing here trusts a client to end. Knows no path; `health` and
//! `page` bring the routers.
//!
//! # Guarantees
//! A connection whose head has not come whole within [`HEAD`], or whose answer is not taken within [`TAKE`], is closed.
//! There are never more connections than places. A newcomer always gets a place: the oldest connection without a
//! complete request loses its own, so that clients that say nothing, or say it slowly, keep nobody out.

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

/// How long a client may take to read its answer.
const TAKE: Duration = Duration::from_secs(5);

/// The largest head, in bytes; hyper has no smaller buffer.
const HEAD_SIZE: usize = 8 << 10;

/// How long is waited after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Its request is not complete.
    Head,
    /// Its answer is being made.
    Asked,
    /// Its answer is being taken.
    Answered,
}

/// One connection, as the others' accept loop sees it.
#[derive(Debug)]
struct Conversation {
    stage: watch::Sender<Stage>,
    /// Cancelled when its place is another's.
    lost: CancellationToken,
}

/// The places of one listener.
#[derive(Debug)]
struct Places {
    room: usize,
    /// By age: the numbers grow.
    open: Mutex<BTreeMap<u64, Arc<Conversation>>>,
}

/// A place, given back when dropped.
#[derive(Debug)]
struct Place {
    number: u64,
    conversation: Arc<Conversation>,
    places: Arc<Places>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Conversation>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A place for connection `number`. Without a free one the oldest connection without a complete request goes; where
    /// all are complete, the oldest.
    fn take(places: &Arc<Places>, number: u64) -> Place {
        let conversation =
            Arc::new(Conversation { stage: watch::Sender::new(Stage::Head), lost: CancellationToken::new() });
        let mut open = places.lock();
        if open.len() >= places.room {
            let incomplete = open.iter().find(|(_, one)| *one.stage.borrow() == Stage::Head);
            let goes = incomplete.or_else(|| open.iter().next()).map(|(number, _)| *number);
            if let Some(one) = goes.and_then(|number| open.remove(&number)) {
                one.lost.cancel();
            }
        }
        open.insert(number, Arc::clone(&conversation));
        Place { number, conversation, places: Arc::clone(places) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(&self.number);
    }
}

/// Accepts until `stop` is done; at most `room` connections are open at once.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    room: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let places = Arc::new(Places { room: room.max(1), open: Mutex::default() });
    tokio::pin!(stop);
    for number in 0.. {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let Ok((stream, _)) = accepted else {
            // Descriptors have run out; trying at once would only burn time.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        tokio::spawn(converse(stream, router.clone(), Place::take(&places, number)));
        // So that a request that has come already is read before a later connection may take its place.
        tokio::task::yield_now().await;
    }
}

/// Serves one connection: until it is done, its time is over, or its place is another's.
async fn converse(stream: TcpStream, router: Router, place: Place) {
    let conversation = &place.conversation;
    let answer = |request: Request<Incoming>| {
        conversation.stage.send_replace(Stage::Asked);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await;
            conversation.stage.send_replace(Stage::Answered);
            answer
        }
    };
    let http = async {
        // A client that says nothing has no buffer yet. What a client does wrong is its own business.
        if stream.readable().await.is_ok() {
            let mut server = http1::Builder::new();
            server.keep_alive(false).max_buf_size(HEAD_SIZE);
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        }
    };
    tokio::select! {
        () = http => {}
        () = time_is_over(conversation) => {}
        () = conversation.lost.cancelled() => {}
    }
}

/// Ends when the client was too slow. How long an answer may take is its maker's to bound.
async fn time_is_over(conversation: &Conversation) {
    let mut stage = conversation.stage.subscribe();
    if timeout(HEAD, stage.wait_for(|stage| *stage > Stage::Head)).await.is_ok() {
        // The sender lives as long as the connection.
        let _ = stage.wait_for(|stage| *stage > Stage::Asked).await;
        sleep(TAKE).await;
    }
}
