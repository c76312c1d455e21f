//! `/metrics`: the page with all metrics, in the format that the client asks for.
//!
//! Encoding the page costs more than sending it, so a client that asks without pause gets a page
//! that was encoded up to a second ago.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{accept, http};
use crate::server::metrics::{Exposition, Format};

/// How many pages are encoded within this time; further requests get the last one of their format,
/// for which one more may be encoded: 20 in all.
const MADE: (u32, Duration) = (19, Duration::from_secs(1));

/// The last pages, and how many were encoded in the current second.
#[derive(Debug)]
struct Page {
    metrics: Arc<Exposition>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    since: Instant,
    made: u32,
    classic: Option<Bytes>,
    openmetrics: Option<Bytes>,
}

impl Last {
    fn new() -> Last {
        Last { since: Instant::now(), made: 0, classic: None, openmetrics: None }
    }

    fn text(&mut self, format: Format) -> &mut Option<Bytes> {
        match format {
            Format::Classic => &mut self.classic,
            Format::OpenMetrics => &mut self.openmetrics,
        }
    }
}

/// Serves `/metrics` until `stop` is done, to at most `limit` clients at once.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Arc<Exposition>,
    limit: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let last = Mutex::new(Last::new());
    let router = Router::new().route("/metrics", get(show)).with_state(Arc::new(Page { metrics, last }));
    http::serve(listener, router, limit, stop).await;
}

async fn show(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = accept::preferred(&accept);
    let ([kind, subtype], version) = (format.media_type(), format.version());
    let content_type = format!("{kind}/{subtype}; version={version}; charset=utf-8");
    match page.text(format) {
        Some(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Page {
    /// The page; `None` if it cannot be encoded.
    fn text(&self, format: Format) -> Option<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (most, time) = MADE;
        if last.since.elapsed() >= time {
            // Kept in memory only while clients ask that often.
            *last = Last::new();
        }
        let enough = last.made >= most;
        if let Some(text) = last.text(format).clone().filter(|_| enough) {
            return Some(text);
        }
        let text = Bytes::from(self.metrics.encode(format).ok()?);
        last.made += 1;
        *last.text(format) = (last.made >= most).then(|| text.clone());
        Some(text)
    }
}
