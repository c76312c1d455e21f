//! Starting and stopping the emulator inside a process.
//!
//! It runs on a thread and a runtime of its own, so that plain synchronous tests can use it.
//! What happens on its sockets is `server`'s business, and what it knows is set through [`Azure`].
//!
//! # Guarantees
//!
//! When [`Emulator::start`] returns, all sockets accept. When the value has been dropped, all are
//! closed and the thread has ended.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::azure::Azure;
use crate::clouds::Clouds;
use crate::proxy::{self, TokenProxy, TokenProxyOptions};
use crate::server::Entrance;
use crate::tls::{self, TlsError};
use crate::world::Shared;
use crate::{admin, server};

/// Enough to answer while a handshake is being computed; never the machine's core count.
const WORKER_THREADS: usize = 2;

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where Entra ID and Key Vault listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where the admin API listens, on a loopback address; `None` for none.
    pub admin: Option<SocketAddr>,
    /// Names of a custom cloud: `*.vault.stack.test` is a vault suffix, others are login hosts.
    pub dns_names: Vec<String>,
    /// Where the metadata service listens, which gives tokens to managed identities; `None` for none.
    pub imds: Option<SocketAddr>,
    /// How long every answer takes at least.
    pub base_latency: Duration,
}

impl Options {
    /// Any free port of 127.0.0.1, no admin API, no metadata service, no custom cloud, no latency.
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

/// Why the emulator did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address}: {source}; choose a free port, below 1024 needs root")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The admin API has no password.
    #[error("the admin API has no password: give it a loopback address instead of {0}")]
    AdminNotLoopback(SocketAddr),
    /// No certificate could be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No runtime or thread could be made.
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
    /// Makes certificates, binds the sockets and starts to serve.
    pub fn start(options: Options) -> Result<Emulator, StartError> {
        let clouds = Clouds::new(&options.dns_names);
        let identity = tls::identity(&clouds)?;
        let shared = Arc::new(Shared::new(clouds, options.base_latency));
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
        let azure = Entrance::Azure(TlsAcceptor::from(identity.server));
        serve(&handle, &shared, listener, azure).map_err(StartError::Thread)?;
        if let Some(listener) = imds_listener {
            serve(&handle, &shared, listener, Entrance::Imds).map_err(StartError::Thread)?;
        }
        if let Some(listener) = admin_listener {
            serve_admin(&handle, &shared, listener, identity.ca_pem).map_err(StartError::Thread)?;
        }
        let thread = std::thread::Builder::new()
            .name("azure-emulator".to_owned())
            .spawn(move || {
                // A sender that was dropped means stop as well. The runtime goes down with this closure.
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

    /// The certificate authority that clients must trust, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The handle that sets the scene and reads back what happened.
    pub fn azure(&self) -> Azure {
        self.azure.clone()
    }

    /// Where Entra ID and Key Vault listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metadata service listens.
    pub fn imds_address(&self) -> Option<SocketAddr> {
        self.imds_address
    }

    /// Starts a cluster's API server and token proxy, which run as long as the emulator.
    pub fn start_token_proxy(&self, options: &TokenProxyOptions) -> Result<TokenProxy, StartError> {
        let setup = proxy::set_up(options)?;
        let (listener, address) = bind(options.listen)?;
        let entrance = Entrance::Cluster(setup.acceptor, setup.cluster);
        serve(&self.runtime, &self.azure.shared, listener, entrance).map_err(StartError::Thread)?;
        Ok(TokenProxy { address, sni: setup.sni, ca_pem: setup.ca_pem })
    }

    /// Where the admin API listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has already been printed, and there is nobody to tell here.
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

fn serve(runtime: &Handle, shared: &Arc<Shared>, listener: TcpListener, entrance: Entrance) -> io::Result<()> {
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(server::run(listener, entrance, Arc::clone(shared)));
    Ok(())
}

fn serve_admin(runtime: &Handle, shared: &Arc<Shared>, listener: TcpListener, ca_pem: String) -> io::Result<()> {
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(admin::run(listener, Azure::new(Arc::clone(shared)), ca_pem));
    Ok(())
}
