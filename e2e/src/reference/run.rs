//! Runs the reference provider: its socket, and its control API.

use std::fs;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use super::options::Options;
use super::{control, service};

/// Serves until SIGTERM.
///
/// # Errors
/// The sockets cannot be bound.
pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let Options { socket, control } = options;
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let controls = TcpListener::bind(control).await.with_context(|| format!("cannot listen on {control}"))?;
    let state = Arc::new(Mutex::default());
    let mut terminate = signal(SignalKind::terminate())?;
    let control = axum::serve(controls, control::router(Arc::clone(&state)));
    let shutdown = async move {
        terminate.recv().await;
    };
    tokio::select! {
        served = service::serve(listener, state, shutdown) => served?,
        served = control => served?,
    }
    // Like Go's listeners. A provider that is killed leaves its socket.
    Ok(fs::remove_file(socket)?)
}
