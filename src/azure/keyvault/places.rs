//! Who may use a connection to Azure: as many fetches at once as there are places, and no namespace more than its
//! share.
//!
//! A fetch of one object, token or challenge takes a place before it begins (`flight`) and has it to its end, with all
//! that it leads to and all connections that it opens (`connect`). Sends nothing and knows no host.
//!
//! # Guarantees
//! No namespace has more than half of the places, and the last quarter is for those that have few: whoever names a
//! thousand vaults that do not answer waits for himself. Whoever joins another's fetch needs no place, so that nobody
//! waits for another's share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::Error;
use super::rank::Rank;

tokio::task_local! {
    /// The place in which this task's fetch runs.
    static IN_HAND: Place;
}

/// How many there are, and how they are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    all: usize,
    /// The most of one namespace.
    each: usize,
    /// How many places are kept for namespaces that have fewer than `few`.
    kept: usize,
    few: usize,
}

impl Rules {
    fn of(all: usize) -> Rules {
        let all = all.max(1);
        Rules { all, each: all.div_ceil(2), kept: all / 4, few: (all / 16).max(1) }
    }

    /// Whether one more may go to a namespace that holds so many, when so many are taken in all.
    fn admit(&self, taken: usize, held: usize) -> bool {
        taken < self.all && held < self.each && (taken + self.kept < self.all || held < self.few)
    }
}

/// The process's places. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// By namespace; none that neither holds nor waits.
    shares: HashMap<Arc<str>, Share>,
}

/// What one namespace has.
#[derive(Debug, Default)]
struct Share {
    held: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    call: oneshot::Sender<Place>,
    rank: Rank,
}

impl Share {
    /// Takes out whoever is next: a mount before a refresh.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.call.is_closed());
        let first = self.waiting.iter().position(|waiting| waiting.rank.is_first());
        self.waiting.remove(first.unwrap_or_default())
    }
}

/// A place; clones are one, which is free when the last one is dropped.
#[derive(Debug, Clone)]
pub(super) struct Place {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    places: Places,
    namespace: Arc<str>,
}

/// The places, as the fetches of one namespace see them.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    places: Places,
    namespace: Arc<str>,
}

impl Places {
    pub(super) fn new(all: usize) -> Places {
        Places(Arc::new(Inner { rules: Rules::of(all), state: Mutex::default() }))
    }

    /// The places for the fetches of this namespace.
    pub(super) fn of(&self, namespace: &str) -> Claim {
        Claim { places: self.clone(), namespace: namespace.into() }
    }

    /// Gives free places to those who wait: to the namespace that has fewest, and in it to whoever came first.
    fn call_up(&self) {
        loop {
            let called = {
                let mut state = self.lock();
                let State { taken, shares } = &mut *state;
                let admitted = shares.iter_mut().filter(|(_, share)| self.0.rules.admit(*taken, share.held));
                let waits = admitted.filter(|(_, share)| share.waiting.iter().any(|one| !one.call.is_closed()));
                let Some((namespace, share)) = waits.min_by_key(|(_, share)| share.held) else { return };
                let Some(next) = share.next() else { return };
                (share.held, *taken) = (share.held + 1, *taken + 1);
                (next.call, self.place(namespace))
            };
            // Whoever has gone away in this moment gives the place back at once.
            let _ = called.0.send(called.1);
        }
    }

    /// A place that is counted already.
    fn place(&self, namespace: &Arc<str>) -> Place {
        Place { _held: Arc::new(Held { places: self.clone(), namespace: Arc::clone(namespace) }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The place that the caller's fetch runs in; where it has none, one is waited for, until the deadline.
    ///
    /// # Errors
    /// [`Error::Crowded`].
    pub(super) async fn take(&self, rank: &Rank, deadline: Instant) -> Result<Place, Error> {
        if let Some(place) = in_hand() {
            return Ok(place);
        }
        let started = Instant::now();
        let turn = {
            let mut state = self.places.lock();
            let State { taken, shares } = &mut *state;
            let share = shares.entry(Arc::clone(&self.namespace)).or_default();
            if share.waiting.is_empty() && self.places.0.rules.admit(*taken, share.held) {
                (share.held, *taken) = (share.held + 1, *taken + 1);
                return Ok(self.places.place(&self.namespace));
            }
            let (call, turn) = oneshot::channel();
            share.waiting.push_back(Waiting { call, rank: rank.clone() });
            turn
        };
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                self.places.forget(&self.namespace);
                let (namespace, limit) = (self.namespace.to_string(), self.places.0.rules.each);
                Err(Error::Crowded { namespace, limit, waited: started.elapsed() })
            }
        }
    }
}

impl Places {
    /// Forgets those of a namespace who wait no longer.
    fn forget(&self, namespace: &Arc<str>) {
        let mut state = self.lock();
        if let Some(share) = state.shares.get_mut(namespace) {
            share.waiting.retain(|waiting| !waiting.call.is_closed());
            if share.held == 0 && share.waiting.is_empty() {
                state.shares.remove(namespace);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut state = self.places.lock();
            state.taken -= 1;
            if let Some(share) = state.shares.get_mut(&self.namespace) {
                share.held -= 1;
            }
        }
        self.places.forget(&self.namespace);
        self.places.call_up();
    }
}

/// Runs a fetch in its place.
pub(super) async fn within<T>(place: Place, fetch: impl Future<Output = T>) -> T {
    IN_HAND.scope(place, fetch).await
}

/// The place of the fetch that this task runs.
pub(super) fn in_hand() -> Option<Place> {
    IN_HAND.try_with(Place::clone).ok()
}
