//! Single flight: callers with the same key share one running fetch, and its value while it is
//! usable.
//!
//! Does not decide who may share: the key does, which `tokens`, `challenge` and `object_cache`
//! choose. Sends nothing; the caller's `fetch` does.
//!
//! # Guarantees
//! At most one fetch per key runs, at the highest priority of its waiters. It runs in a task of its
//! own, so that a caller that is cancelled does not fail the followers. All waiters receive an
//! error, with two exceptions: an error about the leader's proof reaches only callers with the same
//! proof, and the leader's timeout only callers whose deadline is not much later. The other callers
//! try again themselves.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::error::{Error, StopReason};
use super::fetch_permits::{NamespacePermits, Permit, with_permit};
use super::priority::Priority;
use crate::compute;
use crate::model::Reason;

/// If the leader's deadline was at least this much earlier than ours, its timeout is not ours: we
/// try again.
const DEADLINE_TOLERANCE: Duration = Duration::from_secs(5);

/// A value that is kept after its fetch.
pub(super) trait Cacheable: Clone + Send + Sync + 'static {
    /// Until when it may be usable.
    fn until(&self) -> Instant;
    /// Its approximate size in bytes.
    fn bytes(&self) -> usize;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// How many values are kept, including those that are being fetched.
    pub(super) values: usize,
    /// The total size in bytes at which values are evicted before another fetch starts.
    pub(super) bytes: usize,
}

/// The value that a caller asks for, and how long it waits.
pub(super) struct FetchRequest<'a, K> {
    pub(super) key: K,
    /// Distinguishes credentials of the same identity.
    pub(super) proof: [u8; 32],
    pub(super) deadline: Instant,
    pub(super) priority: Priority,
    /// The permits for the fetch, should this caller lead it.
    pub(super) permits: NamespacePermits,
    /// The host that answers, for error texts.
    pub(super) host: &'a str,
}

/// A fetch that the caller leads or follows.
struct Joined<V> {
    outcome: Outcome<V>,
    same_proof: bool,
    leader_deadline: Instant,
}

type Outcome<V> = Arc<SetOnce<Completed<V>>>;

struct Completed<V> {
    result: Result<V, Error>,
    /// Counted until the value is dropped.
    _counted: CountedBytes,
}

/// Bytes that are part of `sum` until this is dropped.
struct CountedBytes {
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

impl CountedBytes {
    fn new(bytes: usize, sum: Arc<AtomicUsize>) -> CountedBytes {
        sum.fetch_add(bytes, Ordering::Relaxed);
        CountedBytes { bytes, sum }
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A fetch that runs, or its result.
struct SharedFetch<V: Cacheable> {
    outcome: Outcome<V>,
    /// Of the leader, as the next two.
    proof: [u8; 32],
    deadline: Instant,
    priority: Priority,
}

/// The fetches and values of one kind. Cheap to clone; all clones share them.
pub(super) struct SharedFetches<K, V: Cacheable> {
    entries: Arc<Mutex<Entries<K, V>>>,
    capacity: Capacity,
}

struct Entries<K, V: Cacheable> {
    fetches: HashMap<K, SharedFetch<V>>,
    /// The sum of all values; counted as they come and go, since each new fetch compares it with
    /// the capacity.
    bytes: Arc<AtomicUsize>,
    sweeping: bool,
}

impl<V: Cacheable> SharedFetch<V> {
    /// Until when to keep it; `None` for an error.
    fn until(&self) -> Option<Instant> {
        match self.result() {
            Some(Ok(value)) => Some(value.until()),
            Some(Err(_)) => None,
            None => Some(self.deadline),
        }
    }

    /// `None` while it runs.
    fn result(&self) -> Option<&Result<V, Error>> {
        self.outcome.get().map(|completed| &completed.result)
    }
}

impl<K: Eq + Hash + Clone + Send + 'static, V: Cacheable> SharedFetches<K, V> {
    pub(super) fn new(capacity: Capacity) -> SharedFetches<K, V> {
        let entries = Entries { fetches: HashMap::new(), bytes: Arc::default(), sweeping: false };
        SharedFetches { entries: Arc::new(Mutex::new(entries)), capacity }
    }

    /// The value of this key: a kept one that is `usable`, or else the result of `fetch`, which
    /// runs once for all callers that wait.
    ///
    /// # Errors
    /// That of the fetch, or a timeout at the deadline.
    pub(super) async fn get(
        &self,
        request: FetchRequest<'_, K>,
        usable: impl Fn(&V) -> bool,
        fetch: impl Fn() -> BoxFuture<'static, Result<V, Error>>,
    ) -> Result<V, Error> {
        let started = Instant::now();
        let (mut tries, mut last) = (0, None);
        loop {
            tries += 1;
            let joined = self.lock().join(&request, &usable);
            let joined = match joined {
                Some(joined) => joined,
                None => {
                    // Before the fetch starts, or its followers would wait for the permit of the
                    // leader's namespace.
                    let permit = request.permits.acquire(&request.priority, request.deadline).await?;
                    self.join_or_start(&request, &usable, &fetch, permit)
                }
            };
            let Ok(completed) = tokio::time::timeout_at(request.deadline, joined.outcome.wait()).await else {
                let waited = started.elapsed();
                let no_response = || Error::NoResponse { host: request.host.to_owned(), limit: waited };
                let last = Box::new(last.unwrap_or_else(no_response));
                return Err(Error::GaveUp { stop: StopReason::Deadline, tries, waited, last });
            };
            let error = match &completed.result {
                Ok(value) => return Ok(value.clone()),
                Err(error) => error,
            };
            // A leader always matches its own proof and deadline, so the loop terminates.
            let leader_timeout = joined.leader_deadline + DEADLINE_TOLERANCE < request.deadline && is_timeout(error);
            let leader_proof = !joined.same_proof && is_about_the_proof(error);
            if !leader_timeout && !leader_proof {
                return Err(error.clone());
            }
            last = Some(error.clone());
        }
    }

    /// Whether the value of this key is kept and matches.
    pub(super) fn has(&self, key: &K, matches: impl Fn(&V) -> bool) -> bool {
        self.lock().has(key, matches)
    }

    /// Drops the value of this key if it matches; returns whether it did.
    pub(super) fn drop_if(&self, key: &K, matches: impl Fn(&V) -> bool) -> bool {
        let mut entries = self.lock();
        entries.has(key, matches) && entries.fetches.remove(key).is_some()
    }

    /// Drops expired values every `period`, until none is left; for secrets, which must not stay in
    /// memory.
    pub(super) fn sweep_every(&self, period: Duration) {
        if std::mem::replace(&mut self.lock().sweeping, true) {
            return;
        }
        // Weak, so that this task does not keep the values alive.
        let entries = Arc::downgrade(&self.entries);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(entries) = entries.upgrade() else { return };
                let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
                entries.drop_expired(Instant::now());
                if entries.fetches.is_empty() {
                    entries.fetches.shrink_to_fit();
                    entries.sweeping = false;
                    return;
                }
            }
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().fetches.len()
    }

    /// Follows a fetch that was started meanwhile, or starts one with this permit.
    fn join_or_start(
        &self,
        request: &FetchRequest<'_, K>,
        usable: impl Fn(&V) -> bool,
        fetch: impl Fn() -> BoxFuture<'static, Result<V, Error>>,
        permit: Permit,
    ) -> Joined<V> {
        let mut entries = self.lock();
        if let Some(joined) = entries.join(request, usable) {
            return joined;
        }
        let now = Instant::now();
        entries.fetches.remove(&request.key);
        entries.evict(self.capacity, now);
        let outcome = Arc::new(SetOnce::new());
        // In a task, so that it completes even if all callers are cancelled.
        let run = run(fetch(), request.host.to_owned(), outcome.clone(), entries.bytes.clone());
        tokio::spawn(with_permit(permit, run));
        let (proof, deadline, priority) = (request.proof, request.deadline, request.priority.clone());
        let fetch = SharedFetch { outcome: outcome.clone(), proof, deadline, priority };
        entries.fetches.insert(request.key.clone(), fetch);
        Joined { outcome, same_proof: true, leader_deadline: request.deadline }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a fetch and wakes all waiters; a panic becomes an error, or they would wait until their
/// deadlines.
async fn run<V: Cacheable>(
    fetch: BoxFuture<'static, Result<V, Error>>,
    host: String,
    outcome: Outcome<V>,
    bytes: Arc<AtomicUsize>,
) {
    let panicked = move |_| Err(Error::Sdk { host, kind: "a task that ended early" });
    let result = AssertUnwindSafe(fetch).catch_unwind().await.unwrap_or_else(panicked);
    let counted = CountedBytes::new(result.as_ref().map_or(0, Cacheable::bytes), bytes);
    // Only this sets it.
    let _ = outcome.set(Completed { result, _counted: counted });
}

impl<K, V: Cacheable> Clone for SharedFetches<K, V> {
    fn clone(&self) -> SharedFetches<K, V> {
        SharedFetches { entries: self.entries.clone(), capacity: self.capacity }
    }
}

impl<K: Eq + Hash + Clone, V: Cacheable> Entries<K, V> {
    fn has(&self, key: &K, matches: impl Fn(&V) -> bool) -> bool {
        let result = self.fetches.get(key).and_then(SharedFetch::result);
        matches!(result, Some(Ok(value)) if matches(value))
    }

    /// The fetch of this key, if it runs or its value is usable.
    fn join(&self, request: &FetchRequest<'_, K>, usable: impl Fn(&V) -> bool) -> Option<Joined<V>> {
        let fetch = self.fetches.get(&request.key)?;
        let joinable = match fetch.result() {
            Some(Ok(value)) => usable(value),
            Some(Err(_)) => false,
            None => Instant::now() < fetch.deadline,
        };
        joinable.then(|| {
            fetch.priority.raise_to(&request.priority);
            let same_proof = fetch.proof == request.proof;
            Joined { outcome: fetch.outcome.clone(), same_proof, leader_deadline: fetch.deadline }
        })
    }

    fn drop_expired(&mut self, now: Instant) {
        self.fetches.retain(|_, fetch| fetch.until().is_some_and(|until| until > now));
    }

    /// Makes room for one more value: drops those that have expired, then those that expire next.
    fn evict(&mut self, capacity: Capacity, now: Instant) {
        let full = |entries: &Self| {
            entries.fetches.len() >= capacity.values || entries.bytes.load(Ordering::Relaxed) >= capacity.bytes
        };
        if !full(self) {
            return;
        }
        self.drop_expired(now);
        while full(self) {
            // Running fetches last: their value would only be fetched again.
            let order = |fetch: &SharedFetch<V>| (fetch.result().is_none(), fetch.until());
            let next = self.fetches.iter().min_by_key(|(_, fetch)| order(fetch)).map(|(key, _)| key.clone());
            let Some(next) = next else { return };
            self.fetches.remove(&next);
        }
    }
}

/// Whether the leader's own deadline was the cause.
fn is_timeout(error: &Error) -> bool {
    matches!(
        error,
        Error::GaveUp { stop: StopReason::Deadline | StopReason::RetryAfter(_), .. }
            | Error::QueueTimeout { .. }
            | Error::Compute(compute::Error::Deadline { .. })
    )
}

/// Whether another proof of the same identity may get another answer.
fn is_about_the_proof(error: &Error) -> bool {
    use Reason::{CredentialsMissing, CredentialsRejected, Forbidden, Unauthorized};
    matches!(error.reason(), Unauthorized | Forbidden | CredentialsRejected | CredentialsMissing)
}
