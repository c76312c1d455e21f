//! `/metrics`: the page with all metrics, made anew for each who asks, but not for a crowd.
//!
//! Making it costs more than sending it, so that a client that asks without pause gets what was made last.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::http;
use crate::server::metrics::{self, Metrics};

/// How often the page is made in such a time; beyond that it may be as old as the time.
const MADE: (u32, Duration) = (20, Duration::from_secs(1));

/// The page, and how often it was made lately.
#[derive(Debug)]
struct Page {
    metrics: Metrics,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    since: Instant,
    made: u32,
    text: Option<Bytes>,
}

/// Serves `/metrics` until `stop` is done, to at most `room` clients at once.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    room: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let last = Mutex::new(Last { since: Instant::now(), made: 0, text: None });
    let router = Router::new().route("/metrics", get(show)).with_state(Arc::new(Page { metrics, last }));
    http::serve(listener, router, room, stop).await;
}

async fn show(State(page): State<Arc<Page>>) -> Response {
    match page.text() {
        Some(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Page {
    /// The page; nothing if it cannot be made.
    fn text(&self) -> Option<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (most, time) = MADE;
        if last.since.elapsed() >= time {
            // It is in memory for as long as a crowd asks.
            *last = Last { since: Instant::now(), made: 0, text: None };
        }
        if let Some(text) = last.text.clone().filter(|_| last.made >= most) {
            return Some(text);
        }
        let text = Bytes::from(self.metrics.encode().ok()?);
        last.made += 1;
        last.text = (last.made >= most).then(|| text.clone());
        Some(text)
    }
}
