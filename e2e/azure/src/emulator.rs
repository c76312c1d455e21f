//! Starts and stops the emulator inside a process.
//!
//! It runs on its own thread and runtime, so that synchronous tests can use it. `server` handles
//! its sockets, and [`Azure`] sets it up.
//!
//! # Guarantees
//!
//! When [`Emulator::start`] returns, all sockets accept. When the value is dropped, all sockets are
//! closed and the thread has exited.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::admin;
use crate::azure::handle::Azure;
use crate::clouds::Clouds;
use crate::server::{self, ListenerKind};
use crate::state::SharedState;
use crate::tls::{self, TlsError};
use crate::token_proxy::{TokenProxy, TokenProxyOptions, TokenProxyTls};

/// Enough to respond while a handshake is computed, whatever the number of cores.
const WORKER_THREADS: usize = 2;

/// Where the emulator listens, and how it behaves from the start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address of Entra ID and Key Vault; port 0 selects a free one.
    pub listen: SocketAddr,
    /// The address of the admin API, which must be a loopback address; `None` for no admin API.
    pub admin: Option<SocketAddr>,
    /// Names of a custom cloud: `*.vault.stack.test` is a vault suffix, other names are login
    /// hosts.
    pub dns_names: Vec<String>,
    /// The address of the metadata service; `None` for no metadata service.
    pub imds: Option<SocketAddr>,
    /// The least latency of every response.
    pub base_latency: Duration,
}

impl Options {
    /// A free port of 127.0.0.1, without admin API, metadata service, custom cloud and latency.
    pub fn loopback() -> Options {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
            dns_names: Vec::new(),
            imds: None,
            base_latency: Duration::ZERO,
        }
    }
}

/// The emulator or a token proxy could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address}: {source}; choose a free port, below 1024 needs root")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The admin API has no password, so it listens on loopback only.
    #[error("the admin API has no password: give it a loopback address instead of {0}")]
    AdminNotLoopback(SocketAddr),
    /// A certificate could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The runtime or its thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A running emulator; dropping it stops it.
#[derive(Debug)]
pub struct Emulator {
    azure: Azure,
    ca_pem: String,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    imds_address: Option<SocketAddr>,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Generates certificates, binds the sockets and starts to serve.
    pub fn start(options: Options) -> Result<Emulator, StartError> {
        let clouds = Clouds::new(&options.dns_names);
        let identity = tls::identity(&clouds)?;
        let shared = Arc::new(SharedState::new(clouds, options.base_latency));
        let (listener, address) = bind(options.listen)?;
        let admin = match options.admin {
            Some(asked) if !asked.ip().is_loopback() => {
                return Err(StartError::AdminNotLoopback(asked));
            }
            Some(asked) => Some(bind(asked)?),
            None => None,
        };
        let (admin_listener, admin_address) = admin.unzip();
        let (imds_listener, imds_address) = options.imds.map(bind).transpose()?.unzip();
        let ca_pem = identity.ca_pem.clone();
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime().map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let azure = ListenerKind::Azure(TlsAcceptor::from(identity.server));
        serve(&handle, &shared, listener, azure).map_err(StartError::Thread)?;
        if let Some(listener) = imds_listener {
            serve(&handle, &shared, listener, ListenerKind::Imds).map_err(StartError::Thread)?;
        }
        if let Some(listener) = admin_listener {
            serve_admin(&handle, &shared, listener, identity.ca_pem).map_err(StartError::Thread)?;
        }
        let thread = std::thread::Builder::new()
            .name("azure-emulator".to_owned())
            .spawn(move || {
                // A dropped sender is an error, which stops the runtime as well.
                let _ = runtime.block_on(stopped);
            })
            .map_err(StartError::Thread)?;
        Ok(Emulator {
            azure: Azure::new(shared),
            ca_pem,
            address,
            admin_address,
            imds_address,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The CA that clients must trust, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The handle that sets up tenants and vaults and reads back what happened.
    pub fn azure(&self) -> Azure {
        self.azure.clone()
    }

    /// The address of Entra ID and Key Vault.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the metadata service, if there is one.
    pub fn imds_address(&self) -> Option<SocketAddr> {
        self.imds_address
    }

    /// Starts the API server and the token proxy of a cluster, which run as long as the emulator.
    pub fn start_token_proxy(&self, options: &TokenProxyOptions) -> Result<TokenProxy, StartError> {
        let tls = TokenProxyTls::new(options)?;
        let (listener, address) = bind(options.listen)?;
        let kind = ListenerKind::Cluster(tls.acceptor, tls.cluster);
        serve(&self.runtime, &self.azure.shared, listener, kind).map_err(StartError::Thread)?;
        Ok(TokenProxy { address, sni: tls.sni, ca_pem: tls.ca_pem })
    }

    /// The address of the admin API, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has printed a panic of the thread already.
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("azure-emulator")
        .enable_all()
        .build()
}

fn serve(runtime: &Handle, shared: &Arc<SharedState>, listener: TcpListener, kind: ListenerKind) -> io::Result<()> {
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(server::run(listener, kind, Arc::clone(shared)));
    Ok(())
}

fn serve_admin(runtime: &Handle, shared: &Arc<SharedState>, listener: TcpListener, ca_pem: String) -> io::Result<()> {
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(admin::run(listener, Azure::new(Arc::clone(shared)), ca_pem));
    Ok(())
}
