//! Plain HTTP for people and probes: `/metrics`, `/healthz`, `/readyz`.
//!
//! Says nothing secret and changes nothing; profiling is not served at all. `/healthz` asks the process's own socket: the driver's
//! as the liveness-probe sidecar did, the provider's as upstream's provider does. `/readyz` adds the kubelet's registration.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::csi::probe::probe;
use crate::csi::registration;
use crate::metrics::{self, Metrics};
use crate::plugin;

/// How many connections one address has at once.
const CONNECTIONS: usize = 32;

/// How long a connection may last, request and answer together; a probe of the own socket has three seconds.
const CONNECTION: Duration = Duration::from_secs(10);

/// How long is waited after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/healthz` and `/readyz` look at.
#[derive(Debug, Clone)]
pub struct Health {
    /// The driver's own socket.
    pub socket: PathBuf,
    /// The kubelet's registration; `None` when none is offered.
    pub registration: Option<watch::Receiver<registration::State>>,
}

/// What the provider's health check looks at (spec/azure-provider.md §7.3).
#[derive(Debug, Clone)]
pub struct ProviderHealth {
    /// The provider's own socket.
    pub socket: PathBuf,
    /// The path that is answered, as it stands in the URL.
    pub path: String,
    /// How long the socket may take to answer.
    pub timeout: Duration,
}

/// Every address of the host, as Go programs mean it by `:8095`: of both families, where there are both.
pub fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Reads an address as Go programs take it: `:8095` means [everywhere]; `0` or nothing means none.
///
/// # Errors
/// The text is no address.
pub fn parse_address(text: &str) -> Result<Option<SocketAddr>, String> {
    let all = |port: &str| port.parse().map(everywhere).ok();
    match text {
        "" | "0" => Ok(None),
        _ => match text.strip_prefix(':') {
            Some(port) => all(port),
            None => text.parse().ok(),
        }
        .map(Some)
        .ok_or_else(|| "must be ADDRESS:PORT, :PORT for every address, or 0 for none".to_owned()),
    }
}

/// Binds a listener, naming the address in the error. [Everywhere](everywhere) is every IPv4 address where the kernel has no IPv6.
///
/// # Errors
/// The address is in use or not of this host.
pub async fn bind(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address == everywhere(address.port()) && has_no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address} for {what}: {error}")))
}

/// Linux's number for a family of addresses that the kernel does not have; the standard library has no name for it.
const EAFNOSUPPORT: i32 = 97;

/// Whether the kernel was built, or told, to do without.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Serves `/metrics` until `stop` is done.
///
/// # Errors
/// The listener breaks.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new().route("/metrics", get(show_metrics)).with_state(metrics);
    serve(listener, router, CONNECTION, stop).await;
    Ok(())
}

/// Serves `/healthz` and `/readyz` until `stop` is done.
///
/// # Errors
/// The listener breaks.
pub async fn serve_health(
    listener: TcpListener,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    serve(listener, router.with_state(Arc::new(health)), CONNECTION, stop).await;
    Ok(())
}

/// Serves the provider's health check until `stop` is done: any method, one path.
///
/// # Errors
/// The listener breaks.
pub async fn serve_provider_health(
    listener: TcpListener,
    health: ProviderHealth,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let lifetime = health.timeout + CONNECTION;
    // Not a route, in which braces would mean something.
    let router = Router::new().fallback(provider_healthz).with_state(Arc::new(health));
    serve(listener, router, lifetime, stop).await;
    Ok(())
}

/// Accepts until `stop` is done; every connection has one request, little time, and few beside it.
///
/// Anybody who reaches the node can connect, so that nobody may hold a descriptor for long.
async fn serve(
    listener: TcpListener,
    router: Router,
    lifetime: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let Ok((stream, _)) = accepted else {
            // Descriptors have run out; trying at once would only burn time.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _held = place;
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // What a peer does wrong is its own business.
            let _ = tokio::time::timeout(lifetime, connection).await;
        });
    }
}

async fn show_metrics(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State(health): State<Arc<Health>>) -> Response {
    answer(probe(&health.socket).await)
}

async fn provider_healthz(State(health): State<Arc<ProviderHealth>>, uri: Uri) -> Response {
    match uri.path() == health.path {
        true => answer(plugin::probe(&health.socket, health.timeout).await),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let registered = match &health.registration {
        None => Ok(()),
        Some(state) => match &*state.borrow() {
            registration::State::Registered => Ok(()),
            registration::State::Waiting => Err("the kubelet has not registered the driver yet".to_owned()),
            registration::State::Failed(error) => Err(format!("the kubelet refuses the registration: {error}")),
        },
    };
    answer(match registered {
        Ok(()) => probe(&health.socket).await,
        Err(why) => Err(why),
    })
}

fn answer(outcome: Result<(), String>) -> Response {
    match outcome {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
