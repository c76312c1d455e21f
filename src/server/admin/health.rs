//! `/healthz` and `/readyz`: whether the process's own socket answers, and whether the kubelet knows the driver.
//!
//! Asks the own socket, the driver's as the liveness-probe sidecar did, the provider's as upstream's provider does; all
//! requests of a second share one `look`. Says nothing about Azure, so that no outage of it restarts anything.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http;
use super::look::{Look, Seen};
use crate::node::csi::probe::probe;
use crate::node::csi::registration;
use crate::node::plugin;

/// What `/healthz` and `/readyz` look at.
#[derive(Debug, Clone)]
pub struct Health {
    /// The driver's own socket.
    pub socket: PathBuf,
    /// The kubelet's registration; `None` when none is offered.
    pub registration: Option<watch::Receiver<registration::State>>,
}

/// What the provider's health check looks at.
#[derive(Debug, Clone)]
pub struct ProviderHealth {
    /// The provider's own socket.
    pub socket: PathBuf,
    /// The path that is answered, as it stands in the URL.
    pub path: String,
    /// How long the socket may take to answer.
    pub timeout: Duration,
}

/// What the driver's handlers share.
#[derive(Debug)]
struct Driver {
    look: Look,
    registration: Option<watch::Receiver<registration::State>>,
}

/// What the provider's handler has.
#[derive(Debug)]
struct Provider {
    look: Look,
    path: String,
}

/// Serves `/healthz` and `/readyz` until `stop` is done, to at most `room` clients at once.
pub async fn serve_health(
    listener: TcpListener,
    health: Health,
    room: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let Health { socket, registration } = health;
    let ask = move || {
        let socket = socket.clone();
        async move { probe(&socket).await }.boxed()
    };
    let driver = Arc::new(Driver { look: Look::new(ask), registration });
    let router = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(driver);
    http::serve(listener, router, room, stop).await;
}

/// Serves the provider's health check until `stop` is done, to at most `room` clients at once: any method, one path.
pub async fn serve_provider_health(
    listener: TcpListener,
    health: ProviderHealth,
    room: usize,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let ProviderHealth { socket, path, timeout } = health;
    let ask = move || {
        let socket = socket.clone();
        async move { plugin::probe(&socket, timeout).await }.boxed()
    };
    let provider = Arc::new(Provider { look: Look::new(ask), path });
    // Not a route, in which braces would mean something.
    let router = Router::new().fallback(provider_healthz).with_state(provider);
    http::serve(listener, router, room, stop).await;
}

async fn healthz(State(driver): State<Arc<Driver>>) -> Response {
    answer(driver.look.now().await)
}

async fn readyz(State(driver): State<Arc<Driver>>) -> Response {
    let registered = match &driver.registration {
        None => Ok(()),
        Some(state) => match &*state.borrow() {
            registration::State::Registered => Ok(()),
            registration::State::Waiting => Err("the kubelet has not registered the driver yet".to_owned()),
            registration::State::Failed(error) => Err(format!("the kubelet refuses the registration: {error}")),
        },
    };
    answer(match registered {
        Ok(()) => driver.look.now().await,
        Err(why) => Err(why),
    })
}

async fn provider_healthz(State(provider): State<Arc<Provider>>, uri: Uri) -> Response {
    match uri.path() == provider.path {
        true => answer(provider.look.now().await),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(seen: Seen) -> Response {
    match seen {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
