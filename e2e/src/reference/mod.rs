//! A provider for drivers to be tested with: a reading of the provider protocol of its own, with faults for the asking.
//!
//! Keeps the contract of the mock provider in upstream's end-to-end tests
//! (docs/reference/csi-driver.md#end-to-end-scenarios), so that its scenarios can be played. Shares
//! the protocol's messages with the product and no other code. `contract` says what a Mount is
//! answered, `control` changes that over HTTP, `service` is the gRPC.

mod contract;
mod control;
mod process;
mod service;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

pub use process::{ProviderProcess, Seen};

/// How a reference provider runs.
#[derive(Debug, Clone, Parser)]
#[command(about = "A provider for the Secrets Store CSI driver, for tests")]
pub struct Options {
    /// The socket that the driver calls: NAME.sock in one of its directories.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Where it is told what to do, over HTTP.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub control: SocketAddr,
}

/// Serves until SIGTERM.
///
/// # Errors
/// The sockets cannot be had.
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
    let mut told = signal(SignalKind::terminate())?;
    let control = axum::serve(controls, control::router(Arc::clone(&state)));
    let stop = async move {
        told.recv().await;
    };
    tokio::select! {
        served = service::serve(listener, state, stop) => served?,
        served = control => served?,
    }
    // As Go's listeners do; one that is killed leaves its socket.
    Ok(fs::remove_file(socket)?)
}
