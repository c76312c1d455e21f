//! Faults, latency, counters and the journal.

use std::time::Duration;

use super::handle::{Azure, must};
use crate::fault::Fault;
use crate::record::{Counters, JournalEntry};

impl Azure {
    /// Appends a fault rule.
    ///
    /// # Panics
    /// If the status of the fault is not from 200 to 599.
    #[track_caller]
    pub fn add_fault(&self, fault: Fault) {
        must(self.change(|state| state.add_fault(fault)));
    }

    /// Removes the fault rules that name this vault or tenant.
    pub fn clear_faults(&self, vault_or_tenant: &str) {
        self.shared.lock().faults.clear(Some(vault_or_tenant));
    }

    /// Removes all fault rules.
    pub fn clear_all_faults(&self) {
        self.shared.lock().faults.clear(None);
    }

    /// Sets the least latency of every response.
    pub fn set_base_latency(&self, latency: Duration) {
        self.shared.lock().base_latency = latency;
    }

    /// The number of requests of each kind to a vault or tenant.
    pub fn counters(&self, vault_or_tenant: &str) -> Counters {
        self.shared.lock().recorder.counters(vault_or_tenant)
    }

    /// Resets the counters and the peak of a vault or tenant.
    pub fn reset_counters(&self, vault_or_tenant: &str) {
        let mut state = self.shared.lock();
        state.recorder.reset_counters(Some(vault_or_tenant));
    }

    /// The most requests in flight at once to a vault or tenant since the last reset.
    pub fn max_in_flight(&self, vault_or_tenant: &str) -> usize {
        self.shared.lock().recorder.max_in_flight(vault_or_tenant)
    }

    /// The last 10,000 requests, oldest first.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.shared.lock().recorder.journal()
    }

    /// Empties the journal.
    pub fn reset_journal(&self) {
        self.shared.lock().recorder.reset_journal();
    }
}
