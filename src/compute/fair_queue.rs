//! A fair queue for one permit: next is the namespace whose jobs have used the least time, first in
//! first out within it.
//!
//! Pure: time is an argument, and the parent module wakes the waiters. The queue is fair by used
//! time and not by number of jobs, so that ten small jobs do not wait for ten large jobs of another
//! namespace.
//!
//! # Guarantees
//! A waiter of a namespace that has used less time than others waits for at most one job of another
//! namespace, besides the jobs of its own. A namespace has at most [`PER_NAMESPACE`] waiters, and
//! all together [`TOTAL`]; when the queue holds [`TOTAL`], each namespace may still have
//! [`RESERVED`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Waiters of one namespace. One costs some hundred bytes, besides the call that waits.
pub(super) const PER_NAMESPACE: usize = 4_096;
/// Waiters of all namespaces.
pub(super) const TOTAL: usize = 16_384;
/// Waiters of one namespace in a full queue: as many as one pod's objects that are fetched
/// concurrently.
pub(super) const RESERVED: usize = 16;

/// The permit and its waiters, by namespace.
#[derive(Debug)]
pub(super) struct FairQueue<W> {
    taken: bool,
    namespaces: HashMap<Arc<str>, Queue<W>>,
    /// The used time of the namespace that got the permit last. A namespace that joins, or returns,
    /// starts at this value: its earlier usage does not count.
    level: Duration,
    arrivals: u64,
    count: usize,
}

#[derive(Debug)]
struct Queue<W> {
    used: Duration,
    /// With their arrival numbers.
    waiting: VecDeque<(u64, W)>,
}

impl<W> Default for FairQueue<W> {
    fn default() -> FairQueue<W> {
        FairQueue { taken: false, namespaces: HashMap::new(), level: Duration::ZERO, arrivals: 0, count: 0 }
    }
}

impl<W> FairQueue<W> {
    /// Takes the permit if it is free; [`next`](FairQueue::next) must pass it on.
    pub(super) fn try_acquire(&mut self) -> bool {
        !std::mem::replace(&mut self.taken, true)
    }

    /// Appends a waiter to its namespace's queue. If the queue is full, first removes waiters that
    /// are `cancelled`.
    ///
    /// # Errors
    /// The queue is full; returns the number of the namespace's waiters.
    pub(super) fn enqueue(
        &mut self,
        namespace: &Arc<str>,
        waiter: W,
        cancelled: impl Fn(&W) -> bool,
    ) -> Result<(), usize> {
        let of_namespace = |queue: &Self| queue.namespaces.get(namespace).map_or(0, |queue| queue.waiting.len());
        let full = |queue: &Self| of_namespace(queue) >= if queue.count < TOTAL { PER_NAMESPACE } else { RESERVED };
        if full(self) {
            self.namespaces.values_mut().for_each(|queue| queue.waiting.retain(|(_, waiter)| !cancelled(waiter)));
            self.count = self.namespaces.values().map(|queue| queue.waiting.len()).sum();
        }
        if full(self) {
            return Err(of_namespace(self));
        }
        self.arrivals += 1;
        self.count += 1;
        let arrival = self.arrivals;
        self.queue(namespace).waiting.push_back((arrival, waiter));
        Ok(())
    }

    /// Adds the duration of a job to the used time of its namespace.
    pub(super) fn record_usage(&mut self, namespace: &Arc<str>, time: Duration) {
        self.queue(namespace).used += time;
    }

    /// Passes the permit to the namespace that has used the least time, and returns its first
    /// waiter. Without waiters, the permit is free.
    pub(super) fn next(&mut self) -> Option<W> {
        let first = |queue: &Queue<W>| Some((queue.used, queue.waiting.front()?.0));
        let waiting = self.namespaces.iter().filter_map(|(namespace, queue)| Some((first(queue)?, namespace)));
        let next = waiting.min().map(|(_, namespace)| namespace.clone());
        let waiter = next.and_then(|namespace| {
            let queue = self.namespaces.get_mut(&namespace)?;
            self.level = self.level.max(queue.used);
            queue.waiting.pop_front()
        });
        self.count -= usize::from(waiter.is_some());
        self.taken = waiter.is_some();
        // A namespace at or below `level` would start there anyway, so its entry can go.
        self.namespaces.retain(|_, queue| !queue.waiting.is_empty() || queue.used > self.level);
        waiter.map(|(_, waiter)| waiter)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.count
    }

    #[cfg(test)]
    pub(super) fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    fn queue(&mut self, namespace: &Arc<str>) -> &mut Queue<W> {
        let level = self.level;
        let queue = self.namespaces.entry(namespace.clone());
        let queue = queue.or_insert_with(|| Queue { used: level, waiting: VecDeque::new() });
        if queue.waiting.is_empty() {
            queue.used = queue.used.max(level);
        }
        queue
    }
}
