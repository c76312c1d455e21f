//! `/metrics`: the page with all metrics.
//!
//! Encoding the page costs more than sending it, so a client that asks without pause gets a page
//! that was encoded up to a second ago.

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
use crate::server::metrics::{self, Exposition};

/// How many pages are encoded within this time; further requests get the last one.
const MADE: (u32, Duration) = (20, Duration::from_secs(1));

/// The last page, and how many were encoded in the current second.
#[derive(Debug)]
struct Page {
    metrics: Arc<Exposition>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    since: Instant,
    made: u32,
    text: Option<Bytes>,
}

/// Serves `/metrics` until `stop` is done, to at most `limit` clients at once.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Arc<Exposition>,
    limit: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let last = Mutex::new(Last { since: Instant::now(), made: 0, text: None });
    let router = Router::new().route("/metrics", get(show)).with_state(Arc::new(Page { metrics, last }));
    http::serve(listener, router, limit, stop).await;
}

async fn show(State(page): State<Arc<Page>>) -> Response {
    match page.text() {
        Some(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Page {
    /// The page; `None` if it cannot be encoded.
    fn text(&self) -> Option<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (most, time) = MADE;
        if last.since.elapsed() >= time {
            // Kept in memory only while clients ask that often.
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
