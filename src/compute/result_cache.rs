//! Caches results by keyed digests of their inputs: for as many inputs of a namespace as a node can
//! have volumes.
//!
//! Evicts the least recently used result of the same namespace, so that no namespace can evict
//! results that another one uses. Holds values of a fixed size and never an input; callers must not
//! cache secrets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::formats::keyed_digest::KeyedDigest;

/// Results of one namespace.
pub(super) const PER_NAMESPACE: usize = 1_024;
/// Results of all namespaces; above this, the namespace with the most results loses one.
pub(super) const TOTAL: usize = 4_096;

/// Results by namespace and digest.
#[derive(Debug)]
pub struct ResultCache<V> {
    entries: Mutex<Entries<V>>,
}

#[derive(Debug)]
struct Entries<V> {
    namespaces: HashMap<String, HashMap<KeyedDigest, Entry<V>>>,
    count: usize,
    /// The number of uses so far, as a logical clock.
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    last_use: u64,
}

impl<V> Default for ResultCache<V> {
    fn default() -> ResultCache<V> {
        ResultCache { entries: Mutex::new(Entries { namespaces: HashMap::new(), count: 0, uses: 0 }) }
    }
}

impl<V> ResultCache<V> {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl<V: Clone> ResultCache<V> {
    /// The result for this input; counts as a use.
    pub fn get(&self, namespace: &str, input: &KeyedDigest) -> Option<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let uses = entries.uses;
        let entry = entries.namespaces.get_mut(namespace)?.get_mut(input)?;
        entry.last_use = uses;
        Some(entry.value.clone())
    }

    /// Adds or replaces the result for this input.
    pub fn put(&self, namespace: &str, input: KeyedDigest, value: V) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let last_use = entries.uses;
        let of_namespace = entries.namespaces.entry(namespace.to_owned()).or_default();
        if of_namespace.insert(input, Entry { value, last_use }).is_none() {
            let full = of_namespace.len() > PER_NAMESPACE;
            entries.count += 1;
            if full {
                entries.evict_oldest(namespace);
            } else if entries.count > TOTAL {
                entries.evict_from_largest();
            }
        }
    }
}

impl<V> Entries<V> {
    fn evict_from_largest(&mut self) {
        let largest = self.namespaces.iter().max_by_key(|(_, values)| values.len()).map(|(name, _)| name.clone());
        if let Some(largest) = largest {
            self.evict_oldest(&largest);
        }
    }

    fn evict_oldest(&mut self, namespace: &str) {
        let Some(values) = self.namespaces.get_mut(namespace) else { return };
        let oldest = values.iter().min_by_key(|(_, entry)| entry.last_use).map(|(input, _)| *input);
        if let Some(oldest) = oldest {
            values.remove(&oldest);
            self.count -= 1;
        }
        if values.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}
