//! The connections of one socket, as a whole: how many there are, what they hold, and which has to go.
//!
//! Reads and writes nothing. `connections` asks for a place for each connection, `arrivals` says what its calls do;
//! both carry a closed connection out.
//!
//! # Guarantees
//! There are never more connections than places. A newcomer takes the place of the oldest connection none of whose
//! requests has come whole; it is turned away only when every connection is being served. A connection of this very
//! process always gets in: the driver's own probe. When many are open, those that have been idle for [`IDLE`] are
//! closed. Requests that have not come whole are at most [`ARRIVING`], and hold at most [`HELD`] bytes with what has
//! come of the others: beyond that the connection with most of it goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::platform::process::give_back_memory;

/// How many requests of one socket may be incomplete at once. A request of a kubelet or a driver comes in one go.
pub(super) const ARRIVING: usize = 512;

/// What all requests of one socket may have in memory before they are handed on, in bytes. The largest is 4 MiB, a
/// usual one 4 KiB.
pub(super) const HELD: usize = 32 << 20;

/// How many connections may be idle for as long as they like: a driver keeps one, a kubelet makes one for each call.
const KEPT: usize = 64;
/// For how long a connection may be idle beyond that, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(20);
const SWEEP: Duration = Duration::from_secs(5);

/// The places of one socket. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    room: usize,
    next: AtomicU64,
    arriving: AtomicUsize,
    held: AtomicUsize,
    /// By age: the numbers grow.
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    sweeping: AtomicBool,
    /// How many connections have ended, and requests that were given up.
    ended: AtomicUsize,
}

/// What is known of one connection.
#[derive(Debug)]
struct Connection {
    own: bool,
    /// Whoever reads finds it closed.
    closed: AtomicBool,
    reader: AtomicWaker,
    tally: Mutex<Tally>,
}

/// What a connection's calls do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    /// Requests that have not come whole.
    pub(super) arriving: usize,
    /// Calls whose request has.
    pub(super) served: usize,
    /// Bytes of requests in memory.
    pub(super) held: usize,
    /// Since when there is no call.
    pub(super) idle: Instant,
}

/// One connection's place. Cheap to clone; the place is free when all clones are gone.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    number: u64,
    connection: Arc<Connection>,
    places: Places,
}

impl Connection {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.reader.wake();
    }
}

impl Places {
    /// Places for so many connections.
    pub(super) fn new(room: usize) -> Places {
        let (next, arriving, held, open, sweeping, ended) = Default::default();
        Places(Arc::new(Inner { room: room.max(1), next, arriving, held, open, sweeping, ended }))
    }

    /// A place for a new connection, `own` if this process made it; `None` when it has to be turned away.
    pub(super) fn enter(&self, own: bool) -> Option<Place> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let tally = Tally { arriving: 0, served: 0, held: 0, idle: Instant::now() };
        let (closed, reader) = (AtomicBool::new(false), AtomicWaker::new());
        let connection = Arc::new(Connection { own, closed, reader, tally: Mutex::new(tally) });
        let mut open = self.lock();
        if !own && open.len() >= self.0.room && !close_first(&mut open, |tally| tally.served == 0) {
            return None;
        }
        open.insert(number, Arc::clone(&connection));
        if open.len() > KEPT {
            self.clean_up();
        }
        Some(Place(Arc::new(Taken { number, connection, places: self.clone() })))
    }

    /// Closes the oldest connection that serves nobody, for lack of descriptors.
    pub(super) fn yield_one(&self) {
        close_first(&mut self.lock(), |tally| tally.served == 0);
    }

    /// Sees to it that what a crowd leaves behind goes: connections, and memory.
    fn clean_up(&self) {
        if !self.0.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(self.clone().sweep());
        }
    }

    /// Closes connections that have been idle for long as long as there are many, and gives their memory back, until
    /// all is calm.
    async fn sweep(self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(SWEEP).await;
            let ended = self.0.ended.load(Ordering::Relaxed);
            let gave_back = seen.replace(ended) != Some(ended);
            if gave_back {
                // Waiting for memory is nothing for a thread on which others' tasks run. A lost task is made up for by
                // the next.
                let _ = tokio::task::spawn_blocking(give_back_memory).await;
            }
            let mut open = self.lock();
            let mut is_calm = open.len() <= KEPT && ended == self.0.ended.load(Ordering::Relaxed);
            while open.len() > KEPT && close_first(&mut open, |tally| is_over(tally, Instant::now())) {
                is_calm = false;
            }
            if is_calm && !gave_back {
                self.0.sweeping.store(false, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Closes the connection with most of something that has not come whole; of equals the oldest.
    fn close_worst(&self, most: impl Fn(&Tally) -> usize) {
        let mut open = self.lock();
        let worst = open.iter().filter(|(_, one)| one.tally().arriving > 0);
        // The last of equals is taken, and the oldest shall be.
        let worst = worst.rev().max_by_key(|(_, one)| most(&one.tally())).map(|(number, _)| *number);
        if let Some(one) = worst.and_then(|number| open.remove(&number)) {
            one.close();
            self.clean_up();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.lock().len()
    }
}

/// Closes the oldest connection of others that is like this; says whether there was one.
fn close_first(open: &mut BTreeMap<u64, Arc<Connection>>, like: impl Fn(&Tally) -> bool) -> bool {
    let first = open.iter().find(|(_, one)| !one.own && like(&one.tally())).map(|(number, _)| *number);
    first.and_then(|number| open.remove(&number)).map(|one| one.close()).is_some()
}

fn is_over(tally: &Tally, now: Instant) -> bool {
    tally.arriving + tally.served == 0 && now.duration_since(tally.idle) >= IDLE
}

impl Place {
    /// Whether the connection has to end; `cx` is woken when it has.
    pub(super) fn is_closed(&self, cx: &std::task::Context<'_>) -> bool {
        let connection = &self.0.connection;
        if connection.closed.load(Ordering::Acquire) {
            return true;
        }
        connection.reader.register(cx.waker());
        // It may have been closed between the two.
        connection.closed.load(Ordering::Acquire)
    }

    /// A call begins, with a request of which the head has come.
    pub(super) fn begin(&self) -> Call {
        let places = &self.0.places;
        self.0.connection.tally().arriving += 1;
        if places.0.arriving.fetch_add(1, Ordering::Relaxed) >= ARRIVING {
            places.close_worst(|tally| tally.arriving);
        }
        Call(Arc::new(Begun { place: self.clone(), whole: AtomicBool::new(false), held: AtomicUsize::new(0) }))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.0.ended.fetch_add(1, Ordering::Relaxed);
        self.places.lock().remove(&self.number);
    }
}

/// A call of a connection. Cheap to clone; it is over when all clones are gone.
#[derive(Debug, Clone)]
pub(super) struct Call(Arc<Begun>);

#[derive(Debug)]
struct Begun {
    place: Place,
    whole: AtomicBool,
    held: AtomicUsize,
}

impl Call {
    /// So many bytes of the request have come.
    pub(super) fn hold(&self, bytes: usize) {
        let Taken { connection, places, .. } = &*self.0.place.0;
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        connection.tally().held += bytes;
        if places.0.held.fetch_add(bytes, Ordering::Relaxed) + bytes > HELD {
            places.close_worst(|tally| tally.held);
        }
    }

    /// The request will not come whole.
    pub(super) fn give_up(&self) {
        let places = &self.0.place.0.places;
        places.0.ended.fetch_add(1, Ordering::Relaxed);
        places.clean_up();
    }

    /// The request has come whole.
    pub(super) fn serve(&self) {
        if !self.0.whole.swap(true, Ordering::Relaxed) {
            let Taken { connection, places, .. } = &*self.0.place.0;
            places.0.arriving.fetch_sub(1, Ordering::Relaxed);
            let mut tally = connection.tally();
            (tally.arriving, tally.served) = (tally.arriving - 1, tally.served + 1);
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Taken { connection, places, .. } = &*self.place.0;
        let held = *self.held.get_mut();
        places.0.held.fetch_sub(held, Ordering::Relaxed);
        let mut tally = connection.tally();
        tally.held -= held;
        tally.idle = Instant::now();
        match *self.whole.get_mut() {
            true => tally.served -= 1,
            false => {
                tally.arriving -= 1;
                places.0.arriving.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
