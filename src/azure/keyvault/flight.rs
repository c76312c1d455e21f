//! One request for everybody: what is fetched once for all who want it at the same time, and kept while it is of use.
//!
//! Does not know what is fetched, nor who may share it: that is the key, which `tokens` and `recent` choose. Nothing here is
//! sent. Control comes from there, and goes back to the `fetch` that they bring.
//!
//! # Guarantees
//! At most one fetch per key is under way, of the highest rank of those who wait. It runs in a task of its own, so that one caller's end is not another's failure. A
//! failure reaches all who wait, but for two kinds: what was said about one's proof reaches those only who brought the same, and
//! running out of time those only who wait no longer. The others try by themselves.

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

use super::error::{Error, Stop};
use super::places::{self, Claim, Place};
use super::rank::Rank;
use crate::compute;
use crate::model::Reason;

/// How much earlier another's deadline may be for his running out of time to count as one's own.
const TOLERANCE: Duration = Duration::from_secs(5);

/// What is kept.
pub(super) trait Lasting: Clone + Send + Sync + 'static {
    /// Until when it is of use to anybody.
    fn until(&self) -> Instant;
    /// How large it is, roughly, in bytes.
    fn bytes(&self) -> usize;
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// How many values, those that are being fetched among them.
    pub(super) values: usize,
    /// How many bytes the values may have together before another one is asked for.
    pub(super) bytes: usize,
}

/// What is wanted, by whom, and how long they wait for it.
pub(super) struct Wanted<'a, K> {
    pub(super) key: K,
    /// What tells this credential from others of the same identity.
    pub(super) proof: [u8; 32],
    pub(super) deadline: Instant,
    pub(super) rank: Rank,
    /// The places for whoever has to fetch it.
    pub(super) claim: Claim,
    /// The host that gives it out, for error texts.
    pub(super) host: &'a str,
}

/// What to wait for, whether it is asked for with the same proof, and when who asks for it gives up.
type Joined<V> = (Outcome<V>, bool, Instant);

/// What a fetch brought, once it has ended.
type Outcome<V> = Arc<SetOnce<Landed<V>>>;

struct Landed<V> {
    result: Result<V, Error>,
    /// Counted as long as it lies in memory.
    _weight: Weight,
}

/// So many bytes of the sum in which they are counted.
struct Weight {
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

impl Weight {
    fn new(bytes: usize, sum: Arc<AtomicUsize>) -> Weight {
        sum.fetch_add(bytes, Ordering::Relaxed);
        Weight { bytes, sum }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Something that is being fetched, or is known.
struct Flight<V: Lasting> {
    outcome: Outcome<V>,
    proof: [u8; 32],
    deadline: Instant,
    rank: Rank,
}

/// The process's memory of one kind of things. Cheap to clone; all clones are one.
pub(super) struct Flights<K, V: Lasting> {
    known: Arc<Mutex<Known<K, V>>>,
    room: Room,
}

struct Known<K, V: Lasting> {
    flights: HashMap<K, Flight<V>>,
    /// What the known values have together: every fetch asks for it, and there may be a thousand.
    bytes: Arc<AtomicUsize>,
    sweeping: bool,
}

impl<V: Lasting> Flight<V> {
    /// Until when it is worth keeping: nobody waits for a failure, nor for a fetch that has outlived its deadline.
    fn until(&self) -> Option<Instant> {
        match self.result() {
            Some(Ok(value)) => Some(value.until()),
            Some(Err(_)) => None,
            None => Some(self.deadline),
        }
    }

    /// What it brought; `None` while it is under way.
    fn result(&self) -> Option<&Result<V, Error>> {
        self.outcome.get().map(|landed| &landed.result)
    }
}

impl<K: Eq + Hash + Clone + Send + 'static, V: Lasting> Flights<K, V> {
    /// An empty memory.
    pub(super) fn new(room: Room) -> Flights<K, V> {
        let known = Known { flights: HashMap::new(), bytes: Arc::default(), sweeping: false };
        Flights { known: Arc::new(Mutex::new(known)), room }
    }

    /// The value of this key: a known one that is `usable`, or fetched by `fetch`, which runs once for all who wait.
    ///
    /// # Errors
    /// What fetching it brought, or that it took longer than the deadline.
    pub(super) async fn get(
        &self,
        wanted: Wanted<'_, K>,
        usable: impl Fn(&V) -> bool,
        fetch: impl Fn() -> BoxFuture<'static, Result<V, Error>>,
    ) -> Result<V, Error> {
        let started = Instant::now();
        let (mut tries, mut last) = (0, None);
        loop {
            tries += 1;
            let joined = self.lock().join(&wanted, &usable);
            let (outcome, same, deadline) = match joined {
                Some(joined) => joined,
                None => {
                    // Before the fetch begins, so that others never wait for the place of whoever leads.
                    let place = wanted.claim.take(&wanted.rank, wanted.deadline).await?;
                    self.asked(&wanted, &usable, &fetch, place)
                }
            };
            let Ok(landed) = tokio::time::timeout_at(wanted.deadline, outcome.wait()).await else {
                let waited = started.elapsed();
                let silent = || Error::NoAnswer { host: wanted.host.to_owned(), limit: waited };
                let last = Box::new(last.unwrap_or_else(silent));
                return Err(Error::GaveUp { stop: Stop::Deadline, tries, waited, last });
            };
            let error = match &landed.result {
                Ok(value) => return Ok(value.clone()),
                Err(error) => error,
            };
            // Who leads is always the same as himself, so that this ends.
            let too_early = deadline + TOLERANCE < wanted.deadline && ran_out(error);
            let anothers = !same && is_about_the_proof(error);
            if !too_early && !anothers {
                return Err(error.clone());
            }
            last = Some(error.clone());
        }
    }

    /// Whether the value of this key is known, and is `this`.
    pub(super) fn has(&self, key: &K, this: impl Fn(&V) -> bool) -> bool {
        self.lock().has(key, this)
    }

    /// Drops the value of this key if it is `wrong`; says whether it did.
    pub(super) fn drop_if(&self, key: &K, wrong: impl Fn(&V) -> bool) -> bool {
        let mut known = self.lock();
        known.has(key, wrong) && known.flights.remove(key).is_some()
    }

    /// Wipes what is of no use any more every `period`, until nothing is left; for values that must not outlive their use.
    pub(super) fn sweep_every(&self, period: Duration) {
        if std::mem::replace(&mut self.lock().sweeping, true) {
            return;
        }
        // A memory that nobody holds any more goes with what is in it.
        let known = Arc::downgrade(&self.known);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(known) = known.upgrade() else { return };
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.drop_old(Instant::now());
                if known.flights.is_empty() {
                    known.flights.shrink_to_fit();
                    known.sweeping = false;
                    return;
                }
            }
        });
    }

    /// How many values are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().flights.len()
    }

    /// What to join, or what is fetched from now on, in this place.
    fn asked(
        &self,
        wanted: &Wanted<'_, K>,
        usable: impl Fn(&V) -> bool,
        fetch: impl Fn() -> BoxFuture<'static, Result<V, Error>>,
        place: Place,
    ) -> Joined<V> {
        let mut known = self.lock();
        if let Some(joined) = known.join(wanted, usable) {
            return joined;
        }
        let now = Instant::now();
        known.flights.remove(&wanted.key);
        known.make_room(self.room, now);
        let outcome = Arc::new(SetOnce::new());
        // A task, so that it comes to its end also when nobody waits any more.
        let landing = land(fetch(), wanted.host.to_owned(), outcome.clone(), known.bytes.clone());
        tokio::spawn(places::within(place, landing));
        let (proof, deadline, rank) = (wanted.proof, wanted.deadline, wanted.rank.clone());
        let flight = Flight { outcome: outcome.clone(), proof, deadline, rank };
        known.flights.insert(wanted.key.clone(), flight);
        (outcome, true, wanted.deadline)
    }

    fn lock(&self) -> MutexGuard<'_, Known<K, V>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings a fetch to its end, and tells all who wait; a panic is an error like others, so that nobody waits for nothing.
async fn land<V: Lasting>(
    fetch: BoxFuture<'static, Result<V, Error>>,
    host: String,
    outcome: Outcome<V>,
    bytes: Arc<AtomicUsize>,
) {
    let lost = move |_| Err(Error::Sdk { host, kind: "a task that ended early" });
    let result = AssertUnwindSafe(fetch).catch_unwind().await.unwrap_or_else(lost);
    let weight = Weight::new(result.as_ref().map_or(0, Lasting::bytes), bytes);
    // It is set here only.
    let _ = outcome.set(Landed { result, _weight: weight });
}

impl<K, V: Lasting> Clone for Flights<K, V> {
    fn clone(&self) -> Flights<K, V> {
        Flights { known: self.known.clone(), room: self.room }
    }
}

impl<K: Eq + Hash + Clone, V: Lasting> Known<K, V> {
    fn has(&self, key: &K, this: impl Fn(&V) -> bool) -> bool {
        let result = self.flights.get(key).and_then(Flight::result);
        matches!(result, Some(Ok(value)) if this(value))
    }

    /// Joins the fetch of this key, or takes what it brought, if that is of use.
    fn join(&self, wanted: &Wanted<'_, K>, usable: impl Fn(&V) -> bool) -> Option<Joined<V>> {
        let flight = self.flights.get(&wanted.key)?;
        let joinable = match flight.result() {
            Some(Ok(value)) => usable(value),
            Some(Err(_)) => false,
            None => Instant::now() < flight.deadline,
        };
        joinable.then(|| {
            flight.rank.join(&wanted.rank);
            (flight.outcome.clone(), flight.proof == wanted.proof, flight.deadline)
        })
    }

    fn drop_old(&mut self, now: Instant) {
        self.flights.retain(|_, flight| flight.until().is_some_and(|until| until > now));
    }

    /// Makes room for one more: what is of no use goes first, then what ends soonest.
    fn make_room(&mut self, room: Room, now: Instant) {
        let full =
            |known: &Self| known.flights.len() >= room.values || known.bytes.load(Ordering::Relaxed) >= room.bytes;
        if !full(self) {
            return;
        }
        self.drop_old(now);
        while full(self) {
            // What is under way goes last: it would only be asked for again.
            let order = |flight: &Flight<V>| (flight.result().is_none(), flight.until());
            let soonest = self.flights.iter().min_by_key(|(_, flight)| order(flight)).map(|(key, _)| key.clone());
            let Some(soonest) = soonest else { return };
            self.flights.remove(&soonest);
        }
    }
}

/// Whether somebody's own deadline was the cause.
fn ran_out(error: &Error) -> bool {
    matches!(
        error,
        Error::GaveUp { stop: Stop::Deadline | Stop::AskedToWait(_), .. }
            | Error::HeldBack { .. }
            | Error::Compute(compute::Error::Deadline { .. })
    )
}

/// Whether another proof of the same identity may be answered otherwise.
fn is_about_the_proof(error: &Error) -> bool {
    use Reason::{CredentialsMissing, CredentialsRejected, Forbidden, Unauthorized};
    matches!(error.reason(), Unauthorized | Forbidden | CredentialsRejected | CredentialsMissing)
}
