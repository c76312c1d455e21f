//! Computing that tenants' input asks for, such as the key derivations of a PKCS#12 archive: away from the runtime's
//! threads.
//!
//! One job runs at a time, in a thread of low priority; the namespaces of the pods take turns. Knows no archive and no
//! volume: `provider`, `keyvault` and `mirror` bring jobs, and [`Memory`] keeps what they must not compute again.
//!
//! # Guarantees
//! A namespace waits for one job of another one at most, however many those bring, as long as it takes less time than
//! they do. A job whose requester is gone, or whose deadline has passed, does not run. What waits is a place in the
//! queue, not the job with its input. Queues are bounded.

mod memory;
mod turns;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

pub use self::memory::Memory;
use self::turns::Turns;
use crate::formats::keyed_digest::{DigestKey, KeyedDigest};
use crate::formats::pkcs12::Work;
use crate::model::Reason;
use crate::platform::process;
use crate::server::metrics::Metrics;

/// The name of the thread, as `top -H` shows it.
const THREAD: &str = "key-derivation";

/// Why a job did not run, or was not waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The queue is full.
    #[error(
        "{waiting} archives and certificates of namespace {namespace} wait to be read already; the driver reads one at a time: \
         start fewer pods with certificates at once, or export their archives with fewer iterations (openssl pkcs12 -export -iter 2048)"
    )]
    QueueFull {
        /// The namespace.
        namespace: String,
        /// How many jobs of it wait.
        waiting: usize,
    },
    /// The deadline passed.
    #[error(
        "it was not read within {} s, as the driver reads one archive at a time and others of namespace {namespace} come first: \
         start fewer pods with certificates at once, or export their archives with fewer iterations (openssl pkcs12 -export -iter 2048)",
        .waited.as_secs()
    )]
    Deadline {
        /// The namespace.
        namespace: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The thread could not be started, or died.
    #[error("the thread that reads archives failed; the driver's log has the cause")]
    Thread,
}

impl Error {
    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            Error::QueueFull { .. } | Error::Deadline { .. } => Reason::Overloaded,
            Error::Thread => Reason::Internal,
        }
    }
}

/// The one place where jobs run. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Compute(Arc<Shared>);

struct Shared {
    turns: Mutex<Turns<oneshot::Sender<Turn>>>,
    key: DigestKey,
    metrics: Metrics,
}

/// The right to run a job. Dropping it gives it to the next in the queue.
struct Turn(Option<Arc<Shared>>);

/// A job that runs, for this namespace.
struct Job {
    namespace: Arc<str>,
    began: Instant,
    turn: Turn,
}

impl Compute {
    /// A place where nothing runs yet.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn new(metrics: Metrics) -> io::Result<Compute> {
        let key = DigestKey::new(process::random_bytes()?);
        Ok(Compute(Arc::new(Shared { turns: Mutex::default(), key, metrics })))
    }

    /// The digest of these parts under a key of this process, as a [`Memory`] takes it.
    pub fn digest(&self, parts: &[&[u8]]) -> KeyedDigest {
        self.0.key.digest(parts)
    }

    /// Counts an archive that asks for more than an archive may.
    pub fn count_too_expensive(&self) {
        self.0.metrics.computing_refused("ceiling");
    }

    /// Waits for the turn of this namespace, and runs a job; what it spends of its [`Work`] is counted.
    ///
    /// `prepare` is called when the turn has come: what the job needs is copied no earlier. A job that has begun ends,
    /// whether or not it is waited for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run<T, J>(&self, namespace: &str, deadline: Instant, prepare: impl FnOnce() -> J) -> Result<T, Error>
    where
        T: Send + 'static,
        J: FnOnce(&mut Work) -> T + Send + 'static,
    {
        let (began, name): (_, Arc<str>) = (Instant::now(), namespace.into());
        let late = || {
            self.0.metrics.computing_refused("deadline");
            Error::Deadline { namespace: namespace.to_owned(), waited: began.elapsed() }
        };
        let turn = timeout_at(deadline, self.turn(&name)?).await.map_err(|_| late())?.map_err(|_| Error::Thread)?;
        if Instant::now() >= deadline {
            return Err(late());
        }
        let outcome = start(Job { namespace: name, began: Instant::now(), turn }, prepare())?;
        timeout_at(deadline, outcome).await.map_err(|_| late())?.map_err(|_| Error::Thread)
    }

    /// A place in the queue, through which the turn comes.
    fn turn(&self, namespace: &Arc<str>) -> Result<oneshot::Receiver<Turn>, Error> {
        let (sender, receiver) = oneshot::channel();
        let mut turns = self.0.lock();
        if turns.take() {
            drop(turns);
            // Nobody else has the receiver yet.
            let _ = sender.send(Turn(Some(self.0.clone())));
            return Ok(receiver);
        }
        turns.wait(namespace, sender, oneshot::Sender::is_closed).map_err(|waiting| {
            self.0.metrics.computing_refused("queue");
            Error::QueueFull { namespace: namespace.to_string(), waiting }
        })?;
        Ok(receiver)
    }
}

/// Runs a job in a thread of its own, which keeps the turn until the job has ended.
fn start<T: Send + 'static>(
    running: Job,
    job: impl FnOnce(&mut Work) -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (done, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        // Without it, the job is as important as the others; no reason to fail.
        let _ = process::lower_thread_priority();
        let mut work = Work::default();
        let result = job(&mut work);
        if let Some(shared) = &running.turn.0 {
            shared.metrics.computed(work.spent());
        }
        drop(running);
        // Nobody may wait any more.
        let _ = done.send(result);
    });
    match thread {
        Ok(_) => Ok(outcome),
        Err(error) => {
            warn!(err = %error, "a thread to read an archive cannot be started");
            Err(Error::Thread)
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Turn>>> {
        // Every change is one insertion or removal.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Job {
    /// Before its turn is given on; also of a job that panics.
    fn drop(&mut self) {
        if let Some(shared) = &self.turn.0 {
            shared.lock().used(&self.namespace, self.began.elapsed());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        loop {
            // In a statement of its own, so that the lock is given back before somebody is woken.
            let next = shared.lock().next();
            let Some(next) = next else { return };
            match next.send(Turn(Some(shared.clone()))) {
                Ok(()) => return,
                // Its requester is gone; the turn is still ours to give.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
