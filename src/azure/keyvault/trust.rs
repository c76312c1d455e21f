//! The CA certificates that servers are checked against, read again when they change; and the client that is made of
//! them.
//!
//! Looks at the bundle's files by their facts only, and reads them when those differ; never trusts less than it could
//! read. Control goes back to `http`, which asks for the client before each exchange.
//!
//! # Guarantees
//! A bundle that is empty or damaged for the moment changes nothing: the roots that were read last stay, and the log
//! says so once. A client that has opened many connections is replaced by a new one, which closes all that lie idle: so
//! their number is bounded, however many hosts there are. Looking costs some stat calls every [`LOOK`] at most, and
//! once more when a server's certificate is not trusted.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Certificate;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::Error;
use super::http::Pool;
use crate::platform::fingerprint::fingerprint;

/// How often the files are looked at. A rotated authority is used beside the old one for much longer.
const LOOK: Duration = Duration::from_secs(5);
/// How long looking may take, on a file system that hangs; the requests wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// After how long a damaged bundle that does not change is used as far as it can be read.
const SETTLED: Duration = Duration::from_secs(60);

/// Makes a client of the CA certificates.
type Make = dyn Fn(Vec<Certificate>) -> Result<Pool, Error> + Send + Sync;

/// A client whose CA certificates are kept up to date. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Renewed(Arc<Inner>);

struct Inner {
    make: Box<Make>,
    /// How many connections a client may open before it is replaced.
    most: usize,
    state: Mutex<State>,
}

/// The facts of files that have changed, and what they hold.
type Found = (u64, Result<Roots, Error>);

struct State {
    current: Current,
    /// The files' facts when they were read last, or could not be.
    seen: u64,
    /// How many files or certificates could not be read then.
    faults: usize,
    looked: Instant,
    /// A look that has not ended yet.
    reading: Option<JoinHandle<Option<Found>>>,
    /// The facts of files that could not be used, and when that was told.
    told: Option<(u64, Instant)>,
}

/// The client of the moment.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) pool: Pool,
    /// Grows with each change of the certificates.
    pub(super) generation: u64,
}

/// What the files hold.
struct Roots {
    certificates: Vec<Certificate>,
    faults: usize,
    /// The first of the faults.
    fault: Option<String>,
}

impl Renewed {
    /// Reads the certificates for the first time. A client is replaced when it has opened `most` connections.
    ///
    /// # Errors
    /// [`Error::Client`], when there are none.
    pub(super) fn new(make: Box<Make>, most: usize) -> Result<Renewed, Error> {
        // Before reading: what changes meanwhile is then seen as a change.
        let seen = fingerprint(&places());
        let roots = read()?;
        if let Some(fault) = &roots.fault {
            warn!(fault, faults = roots.faults, "some CA certificates cannot be read");
        }
        let current = Current { pool: make(roots.certificates)?, generation: 0 };
        let state = Mutex::new(State {
            current,
            seen,
            faults: roots.faults,
            looked: Instant::now(),
            reading: None,
            told: None,
        });
        Ok(Renewed(Arc::new(Inner { make, most: most.max(1), state })))
    }

    /// The client to use now.
    pub(super) async fn current(&self) -> Current {
        let mut state = self.0.state.lock().await;
        if state.looked.elapsed() >= LOOK {
            self.look(&mut state).await;
        }
        if state.current.pool.opened.count() >= self.0.most {
            self.replace(&mut state).await;
        }
        state.current.clone()
    }

    /// Another client than `used`, which did not trust a server, if the certificates have changed since.
    pub(super) async fn newer(&self, used: &Current) -> Option<Current> {
        let mut state = self.0.state.lock().await;
        // The handshake that failed cost more than looking does.
        if state.current.generation == used.generation {
            self.look(&mut state).await;
        }
        (state.current.generation != used.generation).then(|| state.current.clone())
    }

    /// Makes a new client of the same certificates. The old one ends, and its idle connections with it, when its last
    /// request has.
    async fn replace(&self, state: &mut State) {
        let seen = state.seen;
        let reading = tokio::task::spawn_blocking(move || (fingerprint(&places()) == seen).then(read));
        // Whatever changed is for the next look to judge.
        if let Ok(Ok(Some(Ok(roots)))) = tokio::time::timeout(PATIENCE, reading).await
            && roots.faults <= state.faults
            && let Ok(pool) = (self.0.make)(roots.certificates)
        {
            state.current.pool = pool;
        }
    }

    async fn look(&self, state: &mut State) {
        state.looked = Instant::now();
        let seen = state.seen;
        // One look at a time: on a file system that hangs, each would keep a thread.
        let reading = state.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let found = fingerprint(&places());
                (found != seen).then(|| (found, read()))
            })
        });
        let Ok(ended) = tokio::time::timeout(PATIENCE, reading).await else {
            return;
        };
        state.reading = None;
        let Ok(Some((found, roots))) = ended else {
            return;
        };
        let stays = state.told.is_some_and(|(facts, when)| facts == found && when.elapsed() >= SETTLED);
        let made = roots.and_then(|roots| match roots.fault {
            // A file that is half written: what is missing may be what is needed.
            // One that stays so for a while is one that nobody is writing.
            Some(fault) if roots.faults > state.faults && !stays => Err(Error::Client(fault)),
            Some(_) | None => Ok(((self.0.make)(roots.certificates)?, roots.faults)),
        });
        match made {
            Ok((pool, faults)) => {
                state.current = Current { pool, generation: state.current.generation + 1 };
                (state.faults, state.seen) = (faults, found);
                info!("the CA certificates have changed and were read again");
            }
            // It is looked at again, for the fault may pass without another change; told once for each change.
            Err(error) if state.told.is_none_or(|(facts, _)| facts != found) => {
                state.told = Some((found, Instant::now()));
                warn!(%error, "the CA certificates have changed and cannot be used; the old ones stay");
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}

/// Where the certificates are read from: what the variables name, else the system's places.
fn places() -> Vec<PathBuf> {
    let file = std::env::var_os(openssl_probe::ENV_CERT_FILE).map(PathBuf::from);
    let folders = std::env::var_os(openssl_probe::ENV_CERT_DIR).unwrap_or_default();
    let folders = std::env::split_paths(&folders).filter(|path| !path.as_os_str().is_empty());
    let named: Vec<PathBuf> = file.into_iter().chain(folders).collect();
    if !named.is_empty() {
        return named;
    }
    let system = openssl_probe::probe();
    system.cert_file.into_iter().chain(system.cert_dir).collect()
}

fn read() -> Result<Roots, Error> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut faults: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    let mut certificates = Vec::new();
    for der in &loaded.certs {
        match Certificate::from_der(der) {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => faults.push(error.to_string()),
        }
    }
    let fault = faults.first().cloned();
    match (certificates.is_empty(), fault) {
        (true, None) => Err(Error::Client("no CA certificates were found".to_owned())),
        (true, Some(fault)) => Err(Error::Client(format!("no CA certificates were found ({fault})"))),
        (false, fault) => Ok(Roots { certificates, faults: faults.len(), fault }),
    }
}
