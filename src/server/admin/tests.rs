//! One check for all concurrent requests, and no place for a client that does not read its
//! response.

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
use super::shared_check::SharedCheck;

/// A check that counts its runs, takes this long, and has this result.
fn counted(takes: Duration, end: Result<(), String>) -> (Arc<SharedCheck>, Arc<AtomicUsize>) {
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
    (Arc::new(SharedCheck::new(Box::new(ask))), count)
}

#[tokio::test]
async fn requests_within_a_second_share_a_check() {
    for end in [Ok(()), Err("the socket is gone".to_owned())] {
        let (check, count) = counted(Duration::from_millis(20), end.clone());
        let seen = join_all((0..100).map(|_| check.result())).await;
        assert!(seen.iter().all(|seen| *seen == end), "a failure is shared like a success");
        assert_eq!((check.result().await, count.load(Ordering::SeqCst)), (end.clone(), 1));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((check.result().await, count.load(Ordering::SeqCst)), (end, 2));
    }
}

/// Otherwise each client that disconnects would start another.
#[tokio::test]
async fn a_check_outlives_the_client_that_started_it() {
    let (check, count) = counted(Duration::from_millis(1_200), Ok(()));
    for _ in 0..10 {
        let asked = tokio::time::timeout(Duration::from_millis(1), check.result());
        assert!(asked.await.is_err(), "it takes longer");
    }
    // A check that takes longer than its result is served is joined, too.
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!((check.result().await, count.load(Ordering::SeqCst)), (Ok(()), 1));
}

/// A response without end, of which the client reads nothing.
#[tokio::test]
async fn a_response_that_is_not_read_is_dropped_after_five_seconds() {
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
    // The listener holds a sender of the channel, and the response the last one.
    drop(stop);
    server.await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), dropped.recv()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(4_500), "dropped after {:?}", began.elapsed());
}
