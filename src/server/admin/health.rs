//! `/healthz` and `/readyz`: whether the role's own socket answers, and whether the role is ready.
//!
//! The role brings both checks as closures. All requests of a second share one health check.
//! Neither asks Azure, so that an outage of Azure restarts no pod.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::http;
use super::shared_check::{Check, Checked, SharedCheck};

/// Whether the role has finished its start, from what it knows already; a text for the operator if
/// not.
pub type Ready = Box<dyn Fn() -> Checked + Send + Sync>;

struct Health {
    live: SharedCheck,
    ready: Ready,
}

/// Serves `/healthz`, the result of `live`, and `/readyz`, those of `ready` and `live`, until
/// `stop` is done, to at most `limit` clients at once.
pub async fn serve_health(
    listener: TcpListener,
    live: Check,
    ready: Ready,
    limit: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let health = Arc::new(Health { live: SharedCheck::new(live), ready });
    let router = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(health);
    http::serve(listener, router, limit, stop).await;
}

/// Serves the result of `live` at one `path`, for any method, until `stop` is done, to at most
/// `limit` clients at once. `path` is compared with the URL's path as it is written.
pub async fn serve_health_at(
    listener: TcpListener,
    path: String,
    live: Check,
    limit: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let state = Arc::new((SharedCheck::new(live), path));
    // Not a route, in which braces would mean something.
    let router = Router::new().fallback(any_method).with_state(state);
    http::serve(listener, router, limit, stop).await;
}

async fn healthz(State(health): State<Arc<Health>>) -> Response {
    response(health.live.result().await)
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    response(match (health.ready)() {
        Ok(()) => health.live.result().await,
        Err(reason) => Err(reason),
    })
}

async fn any_method(State(state): State<Arc<(SharedCheck, String)>>, uri: Uri) -> Response {
    let (live, path) = &*state;
    match uri.path() == path {
        true => response(live.result().await),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

fn response(result: Checked) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}
