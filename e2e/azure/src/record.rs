//! Records of requests: counters by kind, the journal, and the number of requests in flight.
//!
//! Pure; never has a value, a secret or a whole token. A service is a vault's name, a tenant or an
//! endpoint, in lower case. `dispatch` calls [`Recorder::arrive`] and [`Recorder::finish`].

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// The oldest entries beyond this limit are dropped.
const JOURNAL_LIMIT: usize = 10_000;

/// Further services are not counted, so that requests to made-up hosts cannot fill the memory.
const SERVICE_LIMIT: usize = 10_000;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Entra ID: instance discovery.
    Discovery,
    /// Entra ID: the tenant's OpenID configuration.
    OpenidConfiguration,
    /// Entra ID, the metadata service or a token proxy: a token.
    Token,
    /// Key Vault: any request without an `Authorization` header.
    Challenge,
    /// Key Vault: one secret, newest or by version.
    Get,
    /// Key Vault: a page of secrets.
    List,
    /// Key Vault: a page of versions of one secret.
    ListVersions,
    /// Key Vault: a new version of a secret.
    Set,
    /// Key Vault: new attributes for a version of a secret.
    Update,
    /// Key Vault: delete a secret, so that it can still be recovered.
    Delete,
    /// Key Vault: one deleted secret.
    GetDeleted,
    /// Key Vault: a page of deleted secrets.
    ListDeleted,
    /// Key Vault: recover a deleted secret.
    Recover,
    /// Key Vault: purge a deleted secret.
    Purge,
    /// Key Vault: one key, newest or by version.
    KeyGet,
    /// Key Vault: a page of keys.
    KeyList,
    /// Key Vault: a page of versions of one key.
    KeyListVersions,
    /// Key Vault: a new version of a key.
    KeyImport,
    /// Key Vault: new attributes for a version of a key.
    KeyUpdate,
    /// Key Vault: one certificate, newest or by version.
    CertificateGet,
    /// Key Vault: a page of certificates.
    CertificateList,
    /// Key Vault: a page of versions of one certificate.
    CertificateListVersions,
    /// Key Vault: a new version of a certificate.
    CertificateImport,
    /// Key Vault: new attributes for a version of a certificate.
    CertificateUpdate,
    /// Anything else.
    Other,
}

/// The number of requests of each kind to one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counters {
    by_kind: BTreeMap<Kind, u64>,
}

impl Counters {
    /// The number of requests of this kind.
    pub fn get(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or(0)
    }

    /// The number of requests of all kinds.
    pub fn total(&self) -> u64 {
        self.by_kind.values().sum()
    }
}

/// One request in the journal, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Counts all requests since the start; gaps are entries that the journal dropped.
    pub sequence: u64,
    /// The time of arrival, in milliseconds since 1970.
    pub arrived_ms: i64,
    /// The HTTP method.
    pub method: String,
    /// The host, without a port.
    pub host: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The vault's name or the tenant, as used for counters and faults.
    pub service: String,
    /// The kind of request.
    pub kind: Kind,
    /// The client id of the caller, if it is known.
    pub client_id: Option<String>,
    /// Whether the request had an `Authorization` header.
    pub authorized: bool,
    /// The first 16 hexadecimal digits of the SHA-256 of the bearer token.
    pub token_sha256: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The status of the response; `None` while in flight, and for a request that was hung or cut.
    pub status: Option<u16>,
}

/// A journal entry without sequence, time and status.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) service: String,
    pub(crate) kind: Kind,
    pub(crate) client_id: Option<String>,
    pub(crate) authorized: bool,
    pub(crate) token_sha256: Option<String>,
    pub(crate) user_agent: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    services: BTreeMap<String, ServiceRecord>,
    journal: VecDeque<JournalEntry>,
    next: u64,
}

#[derive(Debug, Default)]
struct ServiceRecord {
    counters: Counters,
    in_flight: usize,
    max_in_flight: usize,
}

impl Recorder {
    /// Counts a request and opens its journal entry; returns the sequence to close it with.
    pub(crate) fn arrive(&mut self, arrival: Arrival, arrived_ms: i64) -> u64 {
        self.count(&arrival.service, arrival.kind);
        if self.journal.len() >= JOURNAL_LIMIT {
            self.journal.pop_front();
        }
        let sequence = self.next;
        self.next += 1;
        self.journal.push_back(JournalEntry {
            sequence,
            arrived_ms,
            method: arrival.method,
            host: arrival.host,
            path: arrival.path,
            service: arrival.service,
            kind: arrival.kind,
            client_id: arrival.client_id,
            authorized: arrival.authorized,
            token_sha256: arrival.token_sha256,
            user_agent: arrival.user_agent,
            status: None,
        });
        sequence
    }

    /// Closes the entry of a request; without a status it was hung or cut, or the client
    /// disconnected.
    pub(crate) fn finish(&mut self, sequence: u64, service: &str, status: Option<u16>) {
        if let Some(service) = self.services.get_mut(service) {
            service.in_flight = service.in_flight.saturating_sub(1);
        }
        let first = self.journal.front().map_or(self.next, |entry| entry.sequence);
        let index = sequence.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.journal.get_mut(index)) {
            entry.status = status;
        }
    }

    pub(crate) fn counters(&self, service: &str) -> Counters {
        let service = self.services.get(&service.to_ascii_lowercase());
        service.map(|service| service.counters.clone()).unwrap_or_default()
    }

    /// The counters of all services that have any.
    pub(crate) fn all_counters(&self) -> BTreeMap<String, Counters> {
        let counted = self.services.iter().filter(|(_, service)| service.counters.total() > 0);
        counted.map(|(name, service)| (name.clone(), service.counters.clone())).collect()
    }

    /// The most requests in flight at once.
    pub(crate) fn max_in_flight(&self, service: &str) -> usize {
        let service = self.services.get(&service.to_ascii_lowercase());
        service.map_or(0, |service| service.max_in_flight)
    }

    /// Resets counters and peak of one service, or of all; requests in flight stay counted.
    pub(crate) fn reset_counters(&mut self, service: Option<&str>) {
        let only = service.map(str::to_ascii_lowercase);
        for (name, service) in &mut self.services {
            if only.as_ref().is_none_or(|only| only == name) {
                service.counters = Counters::default();
                service.max_in_flight = service.in_flight;
            }
        }
    }

    /// The journal, oldest entry first.
    pub(crate) fn journal(&self) -> Vec<JournalEntry> {
        self.journal.iter().cloned().collect()
    }

    /// Empties the journal; sequence numbers continue.
    pub(crate) fn reset_journal(&mut self) {
        self.journal.clear();
    }

    fn count(&mut self, name: &str, kind: Kind) {
        if !self.services.contains_key(name) && self.services.len() >= SERVICE_LIMIT {
            return;
        }
        let service = self.services.entry(name.to_owned()).or_default();
        *service.counters.by_kind.entry(kind).or_default() += 1;
        service.in_flight += 1;
        service.max_in_flight = service.max_in_flight.max(service.in_flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(service: &str) -> Arrival {
        Arrival {
            method: "GET".to_owned(),
            host: "host".to_owned(),
            path: "/".to_owned(),
            service: service.to_owned(),
            kind: Kind::Other,
            client_id: None,
            authorized: false,
            token_sha256: None,
            user_agent: None,
        }
    }

    #[test]
    fn the_journal_drops_its_oldest_entries() {
        let mut recorder = Recorder::default();
        for _ in 0..JOURNAL_LIMIT + 5 {
            recorder.arrive(arrival("a"), 0);
        }
        recorder.finish(2, "a", Some(200));
        recorder.finish(5, "a", Some(204));
        let journal = recorder.journal();
        assert_eq!((journal.len(), journal[0].sequence), (JOURNAL_LIMIT, 5));
        let statuses: Vec<_> = journal.iter().filter_map(|entry| entry.status).collect();
        assert_eq!(statuses, [204]);
        assert_eq!(recorder.counters("A").total(), 10_005);
    }

    #[test]
    fn made_up_services_do_not_grow_the_counters_without_limit() {
        let mut recorder = Recorder::default();
        for number in 0..SERVICE_LIMIT + 5 {
            recorder.arrive(arrival(&number.to_string()), 0);
        }
        assert_eq!(recorder.all_counters().len(), SERVICE_LIMIT);
        recorder.arrive(arrival("0"), 0);
        assert_eq!(recorder.counters("0").total(), 2);
    }

    #[test]
    fn the_peak_stays_until_it_is_reset() {
        let mut recorder = Recorder::default();
        let sequences: Vec<_> = (0..3).map(|_| recorder.arrive(arrival("a"), 0)).collect();
        recorder.finish(sequences[0], "a", None);
        assert_eq!(recorder.max_in_flight("a"), 3);
        recorder.reset_counters(Some("a"));
        assert_eq!(recorder.max_in_flight("a"), 2);
    }
}
