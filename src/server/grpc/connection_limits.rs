//! The connections of one socket: how many are open, what they hold in memory, and which one to
//! close.
//!
//! Does no I/O. `connections` acquires a slot for each connection, `request_collector` reports what
//! its calls do; both close a connection whose slot is revoked.
//!
//! # Guarantees
//! There are never more connections than slots. A new connection takes the slot of the oldest one
//! that has no complete request; it is rejected only if every connection is being served. A
//! connection from this process, the health check, always gets a slot. If many are open, those idle
//! for [`IDLE`] are closed. At most [`MAX_INCOMPLETE`] requests are incomplete, and all requests
//! together hold at most [`MAX_BYTES`]: beyond that, the connection with the largest part is
//! closed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::platform::process::return_memory;

/// How many requests of one socket may be incomplete at once. Kubelets and drivers send a request
/// in one write.
pub(super) const MAX_INCOMPLETE: usize = 512;

/// How many bytes all requests of one socket may hold before a service has them. The largest
/// request has 4 MiB, a usual one 4 KiB.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// How many connections may be idle without limit: a driver keeps one, a kubelet opens one for each
/// call.
const KEPT: usize = 64;
/// How long a connection may be idle beyond that number, and how often this is checked.
const IDLE: Duration = Duration::from_secs(20);
const SWEEP: Duration = Duration::from_secs(5);

/// The slots of one socket. Cheap to clone; all clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    next: AtomicU64,
    incomplete: AtomicUsize,
    bytes: AtomicUsize,
    /// By age: the numbers ascend.
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    sweeping: AtomicBool,
    /// Counts closed connections and abandoned requests.
    ended: AtomicUsize,
}

/// The state of one connection.
#[derive(Debug)]
struct Connection {
    own: bool,
    /// The next read or write fails.
    closed: AtomicBool,
    reader: AtomicWaker,
    usage: Mutex<Usage>,
}

/// What the calls of a connection hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Requests that are incomplete.
    pub(super) incomplete: usize,
    /// Calls whose request is complete.
    pub(super) served: usize,
    /// Bytes of requests in memory.
    pub(super) bytes: usize,
    /// When the last call completed.
    pub(super) idle: Instant,
}

/// The slot of one connection. Cheap to clone; it is released with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Slot(Arc<SlotInner>);

#[derive(Debug)]
struct SlotInner {
    number: u64,
    connection: Arc<Connection>,
    slots: Slots,
}

impl Connection {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.reader.wake();
    }
}

impl Slots {
    /// Slots for this many connections.
    pub(super) fn new(limit: usize) -> Slots {
        let (next, incomplete, bytes, open, sweeping, ended) = Default::default();
        Slots(Arc::new(Inner { limit: limit.max(1), next, incomplete, bytes, open, sweeping, ended }))
    }

    /// A slot for a new connection, `own` if this process opened it; `None` if it must be rejected.
    pub(super) fn acquire(&self, own: bool) -> Option<Slot> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let usage = Usage { incomplete: 0, served: 0, bytes: 0, idle: Instant::now() };
        let (closed, reader) = (AtomicBool::new(false), AtomicWaker::new());
        let connection = Arc::new(Connection { own, closed, reader, usage: Mutex::new(usage) });
        let mut open = self.lock();
        if !own && open.len() >= self.0.limit && !close_first(&mut open, |usage| usage.served == 0) {
            return None;
        }
        open.insert(number, Arc::clone(&connection));
        if open.len() > KEPT {
            self.start_sweep();
        }
        Some(Slot(Arc::new(SlotInner { number, connection, slots: self.clone() })))
    }

    /// Closes the oldest connection that serves no call, to free a descriptor.
    pub(super) fn close_idle(&self) {
        close_first(&mut self.lock(), |usage| usage.served == 0);
    }

    /// Starts the sweep that closes idle connections and returns memory to the system.
    fn start_sweep(&self) {
        if !self.0.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(self.clone().sweep());
        }
    }

    /// Closes idle connections while there are many, and returns their memory to the system; ends
    /// when nothing changes any more.
    async fn sweep(self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(SWEEP).await;
            let ended = self.0.ended.load(Ordering::Relaxed);
            let returned = seen.replace(ended) != Some(ended);
            if returned {
                // Blocks, so it must not run on a worker thread. If the task is lost, the next
                // sweep repeats it.
                let _ = tokio::task::spawn_blocking(return_memory).await;
            }
            let mut open = self.lock();
            let mut unchanged = open.len() <= KEPT && ended == self.0.ended.load(Ordering::Relaxed);
            while open.len() > KEPT && close_first(&mut open, |usage| is_idle(usage, Instant::now())) {
                unchanged = false;
            }
            if unchanged && !returned {
                self.0.sweeping.store(false, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Closes the connection with the largest `size` among those with incomplete requests; of equal
    /// ones the oldest.
    fn close_largest(&self, size: impl Fn(&Usage) -> usize) {
        let mut open = self.lock();
        let largest = open.iter().filter(|(_, one)| one.usage().incomplete > 0);
        // max_by_key returns the last of equal items.
        let largest = largest.rev().max_by_key(|(_, one)| size(&one.usage())).map(|(number, _)| *number);
        if let Some(one) = largest.and_then(|number| open.remove(&number)) {
            one.close();
            self.start_sweep();
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

/// Closes the oldest connection that matches and is not our own; returns whether there was one.
fn close_first(open: &mut BTreeMap<u64, Arc<Connection>>, like: impl Fn(&Usage) -> bool) -> bool {
    let first = open.iter().find(|(_, one)| !one.own && like(&one.usage())).map(|(number, _)| *number);
    first.and_then(|number| open.remove(&number)).map(|one| one.close()).is_some()
}

fn is_idle(usage: &Usage, now: Instant) -> bool {
    usage.incomplete + usage.served == 0 && now.duration_since(usage.idle) >= IDLE
}

impl Slot {
    /// Whether the connection must close; wakes `cx` when it must.
    pub(super) fn is_closed(&self, cx: &std::task::Context<'_>) -> bool {
        let connection = &self.0.connection;
        if connection.closed.load(Ordering::Acquire) {
            return true;
        }
        connection.reader.register(cx.waker());
        // It may have been closed since the first check.
        connection.closed.load(Ordering::Acquire)
    }

    /// Begins a call whose request headers have arrived.
    pub(super) fn begin_call(&self) -> Call {
        let slots = &self.0.slots;
        self.0.connection.usage().incomplete += 1;
        if slots.0.incomplete.fetch_add(1, Ordering::Relaxed) >= MAX_INCOMPLETE {
            slots.close_largest(|usage| usage.incomplete);
        }
        Call(Arc::new(CallInner { slot: self.clone(), complete: AtomicBool::new(false), bytes: AtomicUsize::new(0) }))
    }
}

impl Drop for SlotInner {
    fn drop(&mut self) {
        self.slots.0.ended.fetch_add(1, Ordering::Relaxed);
        self.slots.lock().remove(&self.number);
    }
}

/// A call of a connection. Cheap to clone; it is over when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Call(Arc<CallInner>);

#[derive(Debug)]
struct CallInner {
    slot: Slot,
    complete: AtomicBool,
    bytes: AtomicUsize,
}

impl Call {
    /// Adds bytes of the request that have arrived.
    pub(super) fn add_bytes(&self, bytes: usize) {
        let SlotInner { connection, slots, .. } = &*self.0.slot.0;
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        connection.usage().bytes += bytes;
        if slots.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_BYTES {
            slots.close_largest(|usage| usage.bytes);
        }
    }

    /// The request was rejected before it was complete.
    pub(super) fn abandon(&self) {
        let slots = &self.0.slot.0.slots;
        slots.0.ended.fetch_add(1, Ordering::Relaxed);
        slots.start_sweep();
    }

    /// The request is complete.
    pub(super) fn complete(&self) {
        if !self.0.complete.swap(true, Ordering::Relaxed) {
            let SlotInner { connection, slots, .. } = &*self.0.slot.0;
            slots.0.incomplete.fetch_sub(1, Ordering::Relaxed);
            let mut usage = connection.usage();
            (usage.incomplete, usage.served) = (usage.incomplete - 1, usage.served + 1);
        }
    }
}

impl Drop for CallInner {
    fn drop(&mut self) {
        let SlotInner { connection, slots, .. } = &*self.slot.0;
        let bytes = *self.bytes.get_mut();
        slots.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut usage = connection.usage();
        usage.bytes -= bytes;
        usage.idle = Instant::now();
        match *self.complete.get_mut() {
            true => usage.served -= 1,
            false => {
                usage.incomplete -= 1;
                slots.0.incomplete.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
