//! The queue of each vault: which request is sent next, and when.
//!
//! First come, first served, but mounts go before refreshes; `circuit_breaker` decides when a
//! request may be sent. Sends nothing itself: `transport` and `challenge` acquire a turn before
//! each request and report its result.
//!
//! # Guarantees
//! Each request to a vault waits here. A wait ends at the caller's deadline, or after
//! [`MAX_OUTAGE_WAIT`] while the circuit is open, and its error carries the vault's last error.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::circuit_breaker::{Backoff, CircuitBreaker, Observation, PROBE_INTERVAL};
use super::error::Error;
use super::priority::Priority;
use super::rate_limit::Rate;
use crate::model::Purpose;
use crate::model::Reason;
use crate::server::metrics::FetchMetrics;

/// The number of vaults at which idle ones are dropped.
const MAX_VAULTS: usize = 256;

/// How long a request waits while the circuit is open: longer than a restart of a proxy, and short
/// enough for the pod's event to come soon.
const MAX_OUTAGE_WAIT: Duration = Duration::from_secs(15);

/// The process's queues. Cheap to clone; all clones share them.
#[derive(Debug, Clone)]
pub(super) struct VaultQueues {
    rate: Rate,
    metrics: FetchMetrics,
    queues: Arc<Mutex<HashMap<String, VaultQueue>>>,
}

/// The queue of one vault, with the priority of one fetch. Cheap to clone; all clones share the
/// queue.
#[derive(Debug, Clone)]
pub(super) struct VaultQueue {
    host: Arc<str>,
    state: Arc<Mutex<State>>,
    priority: Priority,
    metrics: FetchMetrics,
}

#[derive(Debug)]
struct State {
    breaker: CircuitBreaker,
    waiters: VecDeque<Waiter>,
    /// Whether a task runs [`VaultQueue::dispatch`].
    dispatching: bool,
    /// The error of the vault's last answer; `None` if it was not a fault.
    last_error: Option<Error>,
}

#[derive(Debug)]
struct Waiter {
    turn: oneshot::Sender<()>,
    since: Instant,
    deadline: Instant,
    priority: Priority,
}

impl Waiter {
    /// Whether the turn is certain to come too late, unless the backoff ends early.
    fn is_too_late(&self, backoff: Option<Backoff>, now: Instant) -> bool {
        match backoff {
            Some(Backoff::RetryAfter(until)) => until >= self.deadline,
            Some(Backoff::CircuitOpen(since)) => now >= self.since.max(since) + MAX_OUTAGE_WAIT,
            None => false,
        }
    }
}

impl State {
    /// Whether a waiter goes before a new request of this priority.
    fn has_waiter_before(&self, priority: &Priority) -> bool {
        self.waiters.iter().any(|waiter| waiter.priority.is_high() || !priority.is_high())
    }

    fn pop(&mut self) -> Option<Waiter> {
        let first = self.waiters.iter().position(|waiter| waiter.priority.is_high());
        self.waiters.remove(first.unwrap_or_default())
    }
}

impl VaultQueues {
    pub(super) fn new(rate: Rate, metrics: FetchMetrics) -> VaultQueues {
        VaultQueues { rate, metrics, queues: Arc::default() }
    }

    /// The queue of the vault at this host, with the priority of a mount.
    pub(super) fn queue(&self, host: &str) -> VaultQueue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(host) {
            return queue.clone();
        }
        let now = Instant::now();
        if queues.len() >= MAX_VAULTS {
            queues.retain(|_, queue| !queue.is_idle(now));
        }
        let breaker = CircuitBreaker::new(self.rate, now);
        let state = State { breaker, waiters: VecDeque::new(), dispatching: false, last_error: None };
        let (priority, metrics) = (Priority::of(Purpose::Mount), self.metrics.clone());
        let queue = VaultQueue { host: host.into(), state: Arc::new(Mutex::new(state)), priority, metrics };
        queues.insert(host.to_owned(), queue.clone());
        queue
    }

    /// The number of vaults in a backoff: by Retry-After, and by an open circuit.
    pub(super) fn backoff_counts(&self) -> [usize; 2] {
        let now = Instant::now();
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let backoffs = queues.values().filter_map(|queue| queue.lock().breaker.backoff(now));
        backoffs.fold([0, 0], |[retry_after, circuit_open], backoff| match backoff {
            Backoff::RetryAfter(_) => [retry_after + 1, circuit_open],
            Backoff::CircuitOpen(_) => [retry_after, circuit_open + 1],
        })
    }
}

impl VaultQueue {
    pub(super) fn with_priority(self, priority: Priority) -> VaultQueue {
        VaultQueue { priority, ..self }
    }

    pub(super) fn priority(&self) -> &Priority {
        &self.priority
    }

    /// Waits until one request may be sent.
    ///
    /// # Errors
    /// [`Error::QueueTimeout`] at the deadline, or as soon as the turn is certain to come too late.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<(), Error> {
        let started = Instant::now();
        let turn = {
            let mut state = self.lock();
            if !state.has_waiter_before(&self.priority) && state.breaker.try_acquire(started).is_ok() {
                return Ok(());
            }
            let (sender, turn) = oneshot::channel();
            let waiter = Waiter { turn: sender, since: started, deadline, priority: self.priority.clone() };
            if waiter.is_too_late(state.breaker.backoff(started), started) {
                return Err(self.timeout(&state, started));
            }
            state.waiters.push_back(waiter);
            if !std::mem::replace(&mut state.dispatching, true) {
                tokio::spawn(self.clone().dispatch());
            }
            turn
        };
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.timeout(&self.lock(), started)),
        }
    }

    /// Records the result of a request.
    pub(super) fn record<T>(&self, result: &Result<T, Error>) {
        let mut state = self.lock();
        let observation = match result {
            Ok(_) => Observation::Answered,
            Err(error) if error.reason() == Reason::Throttled => Observation::Throttled(error.retry_after()),
            Err(error) if error.is_transient() => Observation::Failed,
            Err(_) => Observation::Answered,
        };
        state.last_error = match (observation, result) {
            (Observation::Throttled(_) | Observation::Failed, Err(error)) => Some(error.clone()),
            (Observation::Throttled(_) | Observation::Failed, Ok(_)) | (Observation::Answered, _) => None,
        };
        let now = Instant::now();
        let before = state.breaker.backoff(now);
        state.breaker.observe(observation, now);
        if matches!(observation, Observation::Throttled(_)) {
            self.metrics.throttled();
        }
        match state.breaker.backoff(now).filter(|_| before.is_none()) {
            Some(Backoff::RetryAfter(_)) => self.metrics.backoff_started("retry_after"),
            Some(Backoff::CircuitOpen(_)) => self.metrics.backoff_started("circuit_open"),
            None => {}
        }
    }

    /// Wakes the waiters one by one, until none is left.
    async fn dispatch(self) {
        loop {
            let next = {
                let mut state = self.lock();
                let now = Instant::now();
                let backoff = state.breaker.backoff(now);
                // Drop waiters that were cancelled or cannot meet their deadline; closing the
                // channel wakes them with an error.
                state.waiters.retain(|waiter| !waiter.turn.is_closed() && !waiter.is_too_late(backoff, now));
                if state.waiters.is_empty() {
                    state.dispatching = false;
                    return;
                }
                match state.breaker.try_acquire(now) {
                    Ok(()) => {
                        // A waiter that is cancelled at this moment wastes a turn, which does no
                        // harm.
                        let _ = state.pop().map(|waiter| waiter.turn.send(()));
                        continue;
                    }
                    // A backoff may begin during this wait.
                    Err(next) => next.min(now + PROBE_INTERVAL),
                }
            };
            tokio::time::sleep_until(next).await;
        }
    }

    fn timeout(&self, state: &State, since: Instant) -> Error {
        let last = state.last_error.clone().map(Box::new);
        Error::QueueTimeout { host: self.host.to_string(), waited: since.elapsed(), last }
    }

    fn is_idle(&self, now: Instant) -> bool {
        let mut state = self.lock();
        Arc::strong_count(&self.state) == 1 && state.waiters.is_empty() && state.breaker.is_idle(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
