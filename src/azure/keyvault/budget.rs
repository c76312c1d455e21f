//! Each vault's queue: who may send a request, and when.
//!
//! First come, first served, but for refreshes, which let mounts pass; [`pace`](super::pace) says how fast. Sends nothing and reads no answer itself: `transport` and
//! `challenge` ask here before they send, and tell what came back. A vault that wants to be left alone is asked by one at a time.
//!
//! # Guarantees
//! No request to a vault goes round its queue. Nobody waits here past their deadline, nor longer than [`PATIENCE`] for a vault
//! that only fails, and the error says what the vault last said.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::Error;
use super::pace::{Came, PROBE, Pace, Rate, Restraint};
use super::rank::{Purpose, Rank};
use crate::model::Reason;
use crate::server::metrics::Metrics;

/// For how many vaults a pace is remembered before those at rest are forgotten.
const VAULTS: usize = 256;

/// How long a request waits for its turn at a vault that only fails. Longer than a restart of a proxy, much shorter than what
/// makes a person look at the pod.
const PATIENCE: Duration = Duration::from_secs(15);

/// The process's queues. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    rate: Rate,
    metrics: Metrics,
    lanes: Arc<Mutex<HashMap<String, Lane>>>,
}

/// The queue of one vault, and one's rank in it. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    host: Arc<str>,
    state: Arc<Mutex<State>>,
    rank: Rank,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    waiting: VecDeque<Waiting>,
    /// Whether somebody calls up those who wait.
    called: bool,
    /// What the vault last did wrong.
    last: Option<Error>,
}

/// Somebody who waits for a turn.
#[derive(Debug)]
struct Waiting {
    call: oneshot::Sender<()>,
    since: Instant,
    deadline: Instant,
    rank: Rank,
}

impl Waiting {
    /// Whether the turn is sure to come too late, as things stand.
    fn is_hopeless(&self, restraint: Option<Restraint>, now: Instant) -> bool {
        match restraint {
            Some(Restraint::Asked(until)) => until >= self.deadline,
            Some(Restraint::Failing(since)) => now >= self.since.max(since) + PATIENCE,
            None => false,
        }
    }
}

impl State {
    /// Whether somebody waits who goes before a newcomer of this rank.
    fn is_before(&self, rank: &Rank) -> bool {
        self.waiting.iter().any(|waiting| waiting.rank.is_first() || !rank.is_first())
    }

    /// Takes out whoever is next.
    fn next(&mut self) -> Option<Waiting> {
        let first = self.waiting.iter().position(|waiting| waiting.rank.is_first());
        self.waiting.remove(first.unwrap_or_default())
    }
}

impl Budget {
    pub(super) fn new(rate: Rate, metrics: Metrics) -> Budget {
        Budget { rate, metrics, lanes: Arc::default() }
    }

    /// The queue of the vault at this host, in which one waits as a mount does.
    pub(super) fn lane(&self, host: &str) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(host) {
            return lane.clone();
        }
        let now = Instant::now();
        if lanes.len() >= VAULTS {
            lanes.retain(|_, lane| !lane.is_idle(now));
        }
        let state = State { pace: Pace::new(self.rate, now), waiting: VecDeque::new(), called: false, last: None };
        let (rank, metrics) = (Rank::of(Purpose::Mount), self.metrics.clone());
        let lane = Lane { host: host.into(), state: Arc::new(Mutex::new(state)), rank, metrics };
        lanes.insert(host.to_owned(), lane.clone());
        lane
    }
}

impl Budget {
    /// How many vaults are left alone at this moment: because they asked for that, and because they only fail.
    pub(super) fn restrained(&self) -> [usize; 2] {
        let now = Instant::now();
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let restraints = lanes.values().filter_map(|lane| lane.lock().pace.restraint(now));
        restraints.fold([0, 0], |[asked, failing], restraint| match restraint {
            Restraint::Asked(_) => [asked + 1, failing],
            Restraint::Failing(_) => [asked, failing + 1],
        })
    }
}

impl Lane {
    /// The same queue for somebody of this rank.
    pub(super) fn ranked(self, rank: Rank) -> Lane {
        Lane { rank, ..self }
    }

    /// The rank of whoever has this.
    pub(super) fn rank(&self) -> &Rank {
        &self.rank
    }

    /// Waits for one's turn to send one request.
    ///
    /// # Errors
    /// [`Error::HeldBack`] when the turn does not come in time, at once when that is sure.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<(), Error> {
        let started = Instant::now();
        let turn = {
            let mut state = self.lock();
            if !state.is_before(&self.rank) && state.pace.take(started).is_ok() {
                return Ok(());
            }
            let (call, turn) = oneshot::channel();
            let waiting = Waiting { call, since: started, deadline, rank: self.rank.clone() };
            if waiting.is_hopeless(state.pace.restraint(started), started) {
                return Err(self.held_back(&state, started));
            }
            state.waiting.push_back(waiting);
            if !std::mem::replace(&mut state.called, true) {
                tokio::spawn(self.clone().call_up());
            }
            turn
        };
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.held_back(&self.lock(), started)),
        }
    }

    /// Learns from what a request brought.
    pub(super) fn learn<T>(&self, result: &Result<T, Error>) {
        let mut state = self.lock();
        let came = match result {
            Ok(_) => Came::Answer,
            Err(error) if error.reason() == Reason::Throttled => Came::Throttle(error.retry_after()),
            Err(error) if error.is_transient() => Came::Failure,
            Err(_) => Came::Answer,
        };
        state.last = match (came, result) {
            (Came::Throttle(_) | Came::Failure, Err(error)) => Some(error.clone()),
            (Came::Throttle(_) | Came::Failure, Ok(_)) | (Came::Answer, _) => None,
        };
        let now = Instant::now();
        let before = state.pace.restraint(now);
        state.pace.learn(came, now);
        if matches!(came, Came::Throttle(_)) {
            self.metrics.throttled();
        }
        match state.pace.restraint(now).filter(|_| before.is_none()) {
            Some(Restraint::Asked(_)) => self.metrics.restrained("asked"),
            Some(Restraint::Failing(_)) => self.metrics.restrained("failing"),
            None => {}
        }
    }

    /// Calls up those who wait, one by one, until nobody does.
    async fn call_up(self) {
        loop {
            let next = {
                let mut state = self.lock();
                let now = Instant::now();
                let restraint = state.pace.restraint(now);
                // Whoever went away takes nobody's turn; who cannot have one any more is told at once, by the end of the channel.
                state.waiting.retain(|waiting| !waiting.call.is_closed() && !waiting.is_hopeless(restraint, now));
                if state.waiting.is_empty() {
                    state.called = false;
                    return;
                }
                match state.pace.take(now) {
                    Ok(()) => {
                        // One who goes away in this very moment loses a turn, which is no harm.
                        let _ = state.next().map(|waiting| waiting.call.send(()));
                        continue;
                    }
                    // A restraint may begin while this waits.
                    Err(next) => next.min(now + PROBE),
                }
            };
            tokio::time::sleep_until(next).await;
        }
    }

    fn held_back(&self, state: &State, since: Instant) -> Error {
        Error::HeldBack { host: self.host.to_string(), waited: since.elapsed(), last: state.last.clone().map(Box::new) }
    }

    fn is_idle(&self, now: Instant) -> bool {
        let mut state = self.lock();
        Arc::strong_count(&self.state) == 1 && state.waiting.is_empty() && state.pace.is_rested(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
