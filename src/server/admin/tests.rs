//! One look for all who ask at once, and no place for a client that takes no answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::http::serve;
use super::look::Look;

/// A look that counts, takes its time, and ends like this.
fn counted(takes: Duration, end: Result<(), String>) -> (Arc<Look>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let ask = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let end = end.clone();
        async move {
            tokio::time::sleep(takes).await;
            end
        }
        .boxed()
    };
    (Arc::new(Look::new(ask)), count)
}

#[tokio::test]
async fn all_who_ask_at_once_and_within_a_second_share_a_look() {
    for end in [Ok(()), Err("the socket is gone".to_owned())] {
        let (look, count) = counted(Duration::from_millis(20), end.clone());
        let seen = join_all((0..100).map(|_| look.now())).await;
        assert!(seen.iter().all(|seen| *seen == end), "a failure is shared like a success");
        assert_eq!((look.now().await, count.load(Ordering::SeqCst)), (end.clone(), 1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((look.now().await, count.load(Ordering::SeqCst)), (end, 2));
    }
}

/// Else each who asks and goes away would begin another.
#[tokio::test]
async fn a_look_outlives_whoever_asked_for_it() {
    let (look, count) = counted(Duration::from_millis(1_200), Ok(()));
    for _ in 0..10 {
        let asked = tokio::time::timeout(Duration::from_millis(1), look.now());
        assert!(asked.await.is_err(), "it takes longer");
    }
    // Also a look that takes longer than it counts is joined.
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!((look.now().await, count.load(Ordering::SeqCst)), (Ok(()), 1));
}

/// An answer without end, of which the client reads nothing.
#[tokio::test]
async fn an_answer_that_is_not_taken_is_dropped_after_five_seconds() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, mut dropped) = mpsc::channel::<()>(1);
    let endless = move || {
        let answer = answer.clone();
        let body = futures::stream::repeat_with(move || {
            let _kept = &answer;
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'a'; 4_096]))
        });
        async { Body::from_stream(body) }
    };
    let router = Router::new().route("/", get(endless));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router, 1, stopped.map(drop)));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    client.readable().await.unwrap();
    let began = tokio::time::Instant::now();
    // The listener has an end of the channel as well, and the answer the last one.
    drop(stop);
    server.await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), dropped.recv()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(4_500), "dropped after {:?}", began.elapsed());
}
