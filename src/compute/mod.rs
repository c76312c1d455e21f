//! Runs expensive computations on tenants' input, such as the key derivations of a PKCS#12 archive,
//! outside of the async runtime's threads.
//!
//! One job runs at a time, in a thread of low priority, in the order of a fair queue of namespaces.
//! The callers supply the jobs, and [`ResultCache`] holds results that must not be computed again.
//!
//! # Guarantees
//! A namespace that uses less time than others waits for at most one job of another namespace,
//! whatever their number. A job whose caller was cancelled, or whose deadline has passed, does not
//! run. A queue entry does not hold the job's input. Queues are bounded.

mod fair_queue;
mod result_cache;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use self::fair_queue::FairQueue;
pub use self::result_cache::ResultCache;
use crate::formats::keyed_digest::{DigestKey, KeyedDigest};
use crate::formats::pkcs12::Work;
use crate::model::Reason;
use crate::platform::process;
use crate::server::metrics::FetchMetrics;

/// The name in `top -H`.
const THREAD: &str = "key-derivation";

/// Why there is no result of a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The queue is full.
    #[error(
        "{waiting} archives and certificates of namespace {namespace} already wait to be read, and the driver reads one at a time: \
         start fewer pods with certificates at once, or export their archives with fewer iterations (openssl pkcs12 -export -iter 2048)"
    )]
    QueueFull {
        /// The namespace.
        namespace: String,
        /// The jobs of the namespace in the queue.
        waiting: usize,
    },
    /// The deadline passed before the job completed.
    #[error(
        "it was not read within {} s: the driver reads one archive at a time, and others of namespace {namespace} are first; \
         start fewer pods with certificates at once, or export their archives with fewer iterations (openssl pkcs12 -export -iter 2048)",
        .waited.as_secs()
    )]
    Deadline {
        /// The namespace.
        namespace: String,
        /// The time in the queue and in the job.
        waited: Duration,
    },
    /// The thread did not start, or panicked.
    #[error("the thread that reads archives failed; the driver's log has the cause")]
    Thread,
}

impl Error {
    /// For events, logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Error::QueueFull { .. } | Error::Deadline { .. } => Reason::Overloaded,
            Error::Thread => Reason::Internal,
        }
    }
}

/// Runs jobs one at a time. Cheap to clone; all clones share one queue.
#[derive(Debug, Clone)]
pub struct Compute(Arc<Shared>);

struct Shared {
    queue: Mutex<FairQueue<oneshot::Sender<Permit>>>,
    key: DigestKey,
    metrics: FetchMetrics,
}

/// Permits one job to run. Dropping it passes it to the next waiter in the queue.
struct Permit(Option<Arc<Shared>>);

/// A running job.
struct Job {
    namespace: Arc<str>,
    started: Instant,
    permit: Permit,
}

impl Compute {
    /// Runs no job yet.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn new(metrics: FetchMetrics) -> io::Result<Compute> {
        let key = DigestKey::new(process::random_bytes()?);
        Ok(Compute(Arc::new(Shared { queue: Mutex::default(), key, metrics })))
    }

    /// The digest of these parts under a key of this process, for use with a [`ResultCache`].
    pub fn digest(&self, parts: &[&[u8]]) -> KeyedDigest {
        self.0.key.digest(parts)
    }

    /// Counts an archive that was refused for its iterations.
    pub fn count_too_expensive(&self) {
        self.0.metrics.computing_refused("ceiling");
    }

    /// Waits for a permit in the queue of this namespace, then runs a job and counts the [`Work`]
    /// that it spends.
    ///
    /// Calls `prepare` only with the permit, so that the job's input is not copied earlier. A job
    /// that has started runs to its end, even if the caller is cancelled.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run<T, J>(&self, namespace: &str, deadline: Instant, prepare: impl FnOnce() -> J) -> Result<T, Error>
    where
        T: Send + 'static,
        J: FnOnce(&mut Work) -> T + Send + 'static,
    {
        let (queued, name): (_, Arc<str>) = (Instant::now(), namespace.into());
        let late = || {
            self.0.metrics.computing_refused("deadline");
            Error::Deadline { namespace: namespace.to_owned(), waited: queued.elapsed() }
        };
        let permit =
            timeout_at(deadline, self.enqueue(&name)?).await.map_err(|_| late())?.map_err(|_| Error::Thread)?;
        if Instant::now() >= deadline {
            return Err(late());
        }
        let outcome = start(Job { namespace: name, started: Instant::now(), permit }, prepare())?;
        timeout_at(deadline, outcome).await.map_err(|_| late())?.map_err(|_| Error::Thread)
    }

    /// Joins the queue; the permit arrives through the channel.
    fn enqueue(&self, namespace: &Arc<str>) -> Result<oneshot::Receiver<Permit>, Error> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.0.lock();
        if queue.try_acquire() {
            drop(queue);
            // Succeeds: the receiver is still here.
            let _ = sender.send(Permit(Some(self.0.clone())));
            return Ok(receiver);
        }
        queue.enqueue(namespace, sender, oneshot::Sender::is_closed).map_err(|waiting| {
            self.0.metrics.computing_refused("queue");
            Error::QueueFull { namespace: namespace.to_string(), waiting }
        })?;
        Ok(receiver)
    }
}

/// Runs a job in its own thread, which holds the permit until the job is done.
fn start<T: Send + 'static>(
    running: Job,
    compute: impl FnOnce(&mut Work) -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (sender, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        // On failure the job runs with normal priority.
        let _ = process::lower_thread_priority();
        let mut work = Work::default();
        let result = compute(&mut work);
        if let Some(shared) = &running.permit.0 {
            shared.metrics.computed(work.spent());
        }
        drop(running);
        // Fails if the caller was cancelled.
        let _ = sender.send(result);
    });
    match thread {
        Ok(_) => Ok(outcome),
        Err(error) => {
            warn!(err = %error, "cannot start a thread to read an archive");
            Err(Error::Thread)
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, FairQueue<oneshot::Sender<Permit>>> {
        // A poisoned lock is harmless: every change is one insertion or removal.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Job {
    /// Runs before the permit is dropped, also when the job panics.
    fn drop(&mut self) {
        if let Some(shared) = &self.permit.0 {
            shared.lock().record_usage(&self.namespace, self.started.elapsed());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        loop {
            // A statement of its own, so that the lock is released before the waiter wakes.
            let next = shared.lock().next();
            let Some(next) = next else { return };
            match next.send(Permit(Some(shared.clone()))) {
                Ok(()) => return,
                // The waiter was cancelled. Without this, dropping the returned permit would
                // recurse.
                Err(mut permit) => permit.0 = None,
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
