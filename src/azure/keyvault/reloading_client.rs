//! A client that is rebuilt when the CA bundle changes, and when it has opened many connections.
//!
//! Checks the metadata of the bundle's files, and reads them only when it differs. `http` asks for
//! the client before each request.
//!
//! # Guarantees
//! A bundle that is temporarily empty or damaged changes nothing: the certificates that were read
//! last stay in use, and the log says so once. Replacing a client closes its idle connections, so
//! that their number is bounded however many hosts there are. A check costs some stat calls, once
//! in [`CHECK_INTERVAL`] at most, and once more when a server's certificate is not trusted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Certificate;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ca_bundle::CaBundle;
use super::client::CountedClient;
use super::error::Error;

/// How often the files are checked. A rotated authority overlaps with the old one for much longer.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long requests wait for a check, should the file system hang.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// After how long the readable part of a damaged bundle is used if the files do not change.
const DAMAGED_GRACE: Duration = Duration::from_secs(60);

type Build = dyn Fn(Vec<Certificate>) -> Result<CountedClient, Error> + Send + Sync;

/// Cheap to clone; all clones share one client.
#[derive(Clone)]
pub(super) struct ReloadingClient(Arc<Inner>);

struct Inner {
    build: Box<Build>,
    /// How many connections a client may open before it is replaced.
    max_connections: usize,
    state: Mutex<State>,
}

/// The fingerprint of files that have changed, and their content.
type Change = (u64, Result<CaBundle, Error>);

struct State {
    current: CurrentClient,
    /// The fingerprint of the files that were used last.
    fingerprint: u64,
    /// How many of their files or certificates could not be read.
    faults: usize,
    checked: Instant,
    /// A check that takes longer than its timeout.
    running_check: Option<JoinHandle<Option<Change>>>,
    /// The fingerprint of files that could not be used, and when that was logged.
    reported: Option<(u64, Instant)>,
}

#[derive(Clone)]
pub(super) struct CurrentClient {
    pub(super) pool: CountedClient,
    /// Incremented by each change of the certificates.
    pub(super) generation: u64,
}

impl ReloadingClient {
    /// Reads the certificates for the first time. A client is replaced after it has opened
    /// `max_connections`.
    ///
    /// # Errors
    /// [`Error::Client`] if there are none.
    pub(super) fn new(build: Box<Build>, max_connections: usize) -> Result<ReloadingClient, Error> {
        // Before reading, so that a change meanwhile is noticed later.
        let fingerprint = CaBundle::fingerprint();
        let bundle = CaBundle::read()?;
        if let Some(fault) = &bundle.first_fault {
            warn!(fault, faults = bundle.faults, "some CA certificates cannot be read");
        }
        let current = CurrentClient { pool: build(bundle.certificates)?, generation: 0 };
        let state = Mutex::new(State {
            current,
            fingerprint,
            faults: bundle.faults,
            checked: Instant::now(),
            running_check: None,
            reported: None,
        });
        Ok(ReloadingClient(Arc::new(Inner { build, max_connections: max_connections.max(1), state })))
    }

    pub(super) async fn current(&self) -> CurrentClient {
        let mut state = self.0.state.lock().await;
        if state.checked.elapsed() >= CHECK_INTERVAL {
            self.check(&mut state).await;
        }
        if state.current.pool.opened.count() >= self.0.max_connections {
            self.replace(&mut state).await;
        }
        state.current.clone()
    }

    /// A newer client than `used`, which did not trust a server, if the certificates have changed.
    pub(super) async fn newer(&self, used: &CurrentClient) -> Option<CurrentClient> {
        let mut state = self.0.state.lock().await;
        // Regardless of the interval: the failed handshake cost more than a check.
        if state.current.generation == used.generation {
            self.check(&mut state).await;
        }
        (state.current.generation != used.generation).then(|| state.current.clone())
    }

    /// Builds a new client with the same certificates. The old one is dropped, with its idle
    /// connections, when its last request is done.
    async fn replace(&self, state: &mut State) {
        let used = state.fingerprint;
        let reading = tokio::task::spawn_blocking(move || (CaBundle::fingerprint() == used).then(CaBundle::read));
        // A bundle that changes meanwhile is left to the next check.
        if let Ok(Ok(Some(Ok(bundle)))) = tokio::time::timeout(CHECK_TIMEOUT, reading).await
            && bundle.faults <= state.faults
            && let Ok(pool) = (self.0.build)(bundle.certificates)
        {
            state.current.pool = pool;
        }
    }

    async fn check(&self, state: &mut State) {
        state.checked = Instant::now();
        let used = state.fingerprint;
        // One check at a time: on a file system that hangs, each would keep a thread.
        let check = state.running_check.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let found = CaBundle::fingerprint();
                (found != used).then(|| (found, CaBundle::read()))
            })
        });
        let Ok(done) = tokio::time::timeout(CHECK_TIMEOUT, check).await else {
            return;
        };
        state.running_check = None;
        let Ok(Some((found, bundle))) = done else {
            return;
        };
        let unchanged =
            state.reported.is_some_and(|(reported, when)| reported == found && when.elapsed() >= DAMAGED_GRACE);
        let built = bundle.and_then(|bundle| match bundle.first_fault {
            // The file may be half written, and the missing certificate the one that is needed; but
            // not for long.
            Some(fault) if bundle.faults > state.faults && !unchanged => Err(Error::Client(fault)),
            Some(_) | None => Ok(((self.0.build)(bundle.certificates)?, bundle.faults)),
        });
        match built {
            Ok((pool, faults)) => {
                state.current = CurrentClient { pool, generation: state.current.generation + 1 };
                (state.faults, state.fingerprint) = (faults, found);
                info!("the CA certificates have changed and were read again");
            }
            // Checked again, as the fault may pass without another change; logged once for each
            // change.
            Err(error) if state.reported.is_none_or(|(reported, _)| reported != found) => {
                state.reported = Some((found, Instant::now()));
                warn!(%error, "the CA certificates have changed and cannot be used; the old ones stay");
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for ReloadingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadingClient")
    }
}
