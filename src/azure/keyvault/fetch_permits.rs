//! Permits for fetches from Azure: a limit for the process, and a share of it for each namespace.
//!
//! The fetch of one object, token or challenge acquires a permit before it starts
//! (`single_flight`). It holds it to its end, for all fetches that it needs itself and all
//! connections that it opens (`connector`). Knows no host.
//!
//! # Guarantees
//! A namespace has at most half of the permits, and the last quarter is for namespaces with few: a
//! namespace whose classes name a thousand vaults that do not answer delays only its own pods. A
//! caller that joins a running fetch needs no permit, so that it never waits for the share of
//! another namespace.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::Error;
use super::priority::Priority;

tokio::task_local! {
    static CURRENT: Permit;
}

/// How many permits there are, and how namespaces share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PermitLimits {
    total: usize,
    per_namespace: usize,
    /// How many permits are reserved for namespaces that hold fewer than `few`.
    reserved: usize,
    few: usize,
}

impl PermitLimits {
    fn of(total: usize) -> PermitLimits {
        let total = total.max(1);
        PermitLimits { total, per_namespace: total.div_ceil(2), reserved: total / 4, few: (total / 16).max(1) }
    }

    /// Whether a namespace that holds `held` of the `in_use` permits may have another one.
    fn allow(&self, in_use: usize, held: usize) -> bool {
        in_use < self.total && held < self.per_namespace && (in_use + self.reserved < self.total || held < self.few)
    }
}

/// The process's permits. Cheap to clone; all clones share them.
#[derive(Debug, Clone)]
pub(super) struct FetchPermits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: PermitLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_use: usize,
    /// By namespace; only those that hold a permit or wait for one.
    namespaces: HashMap<Arc<str>, Share>,
}

#[derive(Debug, Default)]
struct Share {
    held: usize,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    permit: oneshot::Sender<Permit>,
    priority: Priority,
}

impl Share {
    /// The first mount, or else the first refresh.
    fn pop(&mut self) -> Option<Waiter> {
        self.drop_cancelled();
        let first = self.waiters.iter().position(|waiter| waiter.priority.is_high());
        self.waiters.remove(first.unwrap_or_default())
    }

    fn drop_cancelled(&mut self) {
        self.waiters.retain(|waiter| !waiter.permit.is_closed());
    }
}

/// A permit. Clones share it; dropping the last one releases it.
#[derive(Debug, Clone)]
pub(super) struct Permit {
    _held: Arc<HeldPermit>,
}

#[derive(Debug)]
struct HeldPermit {
    permits: FetchPermits,
    namespace: Arc<str>,
}

/// The permits for fetches of one namespace.
#[derive(Debug, Clone)]
pub(super) struct NamespacePermits {
    permits: FetchPermits,
    namespace: Arc<str>,
}

impl FetchPermits {
    pub(super) fn new(total: usize) -> FetchPermits {
        FetchPermits(Arc::new(Inner { limits: PermitLimits::of(total), state: Mutex::default() }))
    }

    pub(super) fn of_namespace(&self, namespace: &str) -> NamespacePermits {
        NamespacePermits { permits: self.clone(), namespace: namespace.into() }
    }

    /// Gives free permits to waiters, each time to the namespace that holds the fewest.
    fn dispatch(&self) {
        loop {
            let (waiter, permit) = {
                let mut state = self.lock();
                let State { in_use, namespaces } = &mut *state;
                let allowed = namespaces.iter_mut().filter(|(_, share)| self.0.limits.allow(*in_use, share.held));
                let waiting = allowed.filter(|(_, share)| share.waiters.iter().any(|one| !one.permit.is_closed()));
                let Some((namespace, share)) = waiting.min_by_key(|(_, share)| share.held) else { return };
                let Some(waiter) = share.pop() else { return };
                (share.held, *in_use) = (share.held + 1, *in_use + 1);
                (waiter, self.counted_permit(namespace))
            };
            // If the waiter was cancelled at this moment, the permit is dropped here and released
            // at once.
            let _ = waiter.permit.send(permit);
        }
    }

    /// A permit that the state counts already.
    fn counted_permit(&self, namespace: &Arc<str>) -> Permit {
        Permit { _held: Arc::new(HeldPermit { permits: self.clone(), namespace: Arc::clone(namespace) }) }
    }

    fn drop_cancelled(&self, namespace: &Arc<str>) {
        let mut state = self.lock();
        if let Some(share) = state.namespaces.get_mut(namespace) {
            share.drop_cancelled();
            if share.held == 0 && share.waiters.is_empty() {
                state.namespaces.remove(namespace);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NamespacePermits {
    /// The permit of the fetch that the calling task runs, or else a new one.
    ///
    /// # Errors
    /// [`Error::NamespaceLimit`] at the deadline.
    pub(super) async fn acquire(&self, priority: &Priority, deadline: Instant) -> Result<Permit, Error> {
        if let Some(permit) = current_permit() {
            return Ok(permit);
        }
        let started = Instant::now();
        let permit = {
            let mut state = self.permits.lock();
            let State { in_use, namespaces } = &mut *state;
            let share = namespaces.entry(Arc::clone(&self.namespace)).or_default();
            if share.waiters.is_empty() && self.permits.0.limits.allow(*in_use, share.held) {
                (share.held, *in_use) = (share.held + 1, *in_use + 1);
                return Ok(self.permits.counted_permit(&self.namespace));
            }
            let (sender, permit) = oneshot::channel();
            share.waiters.push_back(Waiter { permit: sender, priority: priority.clone() });
            permit
        };
        match tokio::time::timeout_at(deadline, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                self.permits.drop_cancelled(&self.namespace);
                let (namespace, limit) = (self.namespace.to_string(), self.permits.0.limits.per_namespace);
                Err(Error::NamespaceLimit { namespace, limit, waited: started.elapsed() })
            }
        }
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        {
            let mut state = self.permits.lock();
            state.in_use -= 1;
            if let Some(share) = state.namespaces.get_mut(&self.namespace) {
                share.held -= 1;
            }
        }
        self.permits.drop_cancelled(&self.namespace);
        self.permits.dispatch();
    }
}

/// Runs a fetch that holds this permit.
pub(super) async fn with_permit<T>(permit: Permit, fetch: impl Future<Output = T>) -> T {
    CURRENT.scope(permit, fetch).await
}

/// The permit of the fetch that this task runs.
pub(super) fn current_permit() -> Option<Permit> {
    CURRENT.try_with(Permit::clone).ok()
}
