//! Who runs next: the namespace whose jobs have taken the least time, and in it whoever came first.
//!
//! Pure: time is an argument, and waiters are whatever the caller puts in. `mod` wakes them. Fair queueing by the time
//! that was used, not by the number of jobs, so that ten small jobs do not wait for ten large ones of a neighbour.
//!
//! # Guarantees
//! A waiter of a namespace that has used less than others waits for one job of another namespace at most, besides those
//! of its own. At most [`PER_NAMESPACE`] waiters of a namespace are kept, and [`IN_ALL`] together; beyond that, each
//! namespace still has [`OWN`] places.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How many of one namespace wait. A place costs some hundred bytes beside the call that waits in it.
pub(super) const PER_NAMESPACE: usize = 4_096;
/// How many of all namespaces wait together.
pub(super) const IN_ALL: usize = 16_384;
/// How many of a namespace wait however many others do: as many as one pod's objects that are fetched at once.
pub(super) const OWN: usize = 16;

/// Who waits for a turn, by namespace.
#[derive(Debug)]
pub(super) struct Turns<W> {
    taken: bool,
    namespaces: HashMap<Arc<str>, Queue<W>>,
    /// The time that the namespace had used whose turn came last. One that comes, or comes back, begins there: what
    /// others used before is not held against them.
    level: Duration,
    arrivals: u64,
    count: usize,
}

#[derive(Debug)]
struct Queue<W> {
    used: Duration,
    /// With the number of their arrival.
    waiting: VecDeque<(u64, W)>,
}

impl<W> Default for Turns<W> {
    fn default() -> Turns<W> {
        Turns { taken: false, namespaces: HashMap::new(), level: Duration::ZERO, arrivals: 0, count: 0 }
    }
}

impl<W> Turns<W> {
    /// Takes the turn if nobody has it; it must be given on by [`next`](Turns::next).
    pub(super) fn take(&mut self) -> bool {
        !std::mem::replace(&mut self.taken, true)
    }

    /// Puts a waiter at the end of its namespace's queue. Those that are `gone` make room first.
    ///
    /// # Errors
    /// How many of the namespace wait already, where there is no room.
    pub(super) fn wait(&mut self, namespace: &Arc<str>, waiter: W, gone: impl Fn(&W) -> bool) -> Result<(), usize> {
        let of_namespace = |turns: &Self| turns.namespaces.get(namespace).map_or(0, |queue| queue.waiting.len());
        let full = |turns: &Self| of_namespace(turns) >= if turns.count < IN_ALL { PER_NAMESPACE } else { OWN };
        if full(self) {
            self.namespaces.values_mut().for_each(|queue| queue.waiting.retain(|(_, waiter)| !gone(waiter)));
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

    /// Notes that a job of this namespace took this long.
    pub(super) fn used(&mut self, namespace: &Arc<str>, time: Duration) {
        self.queue(namespace).used += time;
    }

    /// Gives the turn to the namespace that has used the least. Without one, nobody has the turn any more.
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
        // What one that comes back would begin with anyway needs no memory.
        self.namespaces.retain(|_, queue| !queue.waiting.is_empty() || queue.used > self.level);
        waiter.map(|(_, waiter)| waiter)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.count
    }

    /// Of how many namespaces something is kept.
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
