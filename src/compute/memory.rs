//! What was computed before, by keyed digests of the input: for as many inputs of a namespace as a node can have
//! volumes.
//!
//! Keeps values of a fixed size only, never an input; the caller keeps no secret here. What was not used for longest
//! goes first, in its own namespace: no namespace can push out what another one uses.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::formats::keyed_digest::KeyedDigest;

/// The most values of a namespace.
pub(super) const PER_NAMESPACE: usize = 1_024;
/// The most values of all namespaces; beyond, the namespace that has most of them loses one.
pub(super) const IN_ALL: usize = 4_096;

/// Values by namespace and digest.
#[derive(Debug)]
pub struct Memory<V> {
    kept: Mutex<Kept<V>>,
}

#[derive(Debug)]
struct Kept<V> {
    namespaces: HashMap<String, HashMap<KeyedDigest, Used<V>>>,
    count: usize,
    /// Counts the uses, in place of a clock.
    uses: u64,
}

#[derive(Debug)]
struct Used<V> {
    value: V,
    last: u64,
}

impl<V> Default for Memory<V> {
    fn default() -> Memory<V> {
        Memory { kept: Mutex::new(Kept { namespaces: HashMap::new(), count: 0, uses: 0 }) }
    }
}

impl<V> Memory<V> {
    /// How many values are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl<V: Clone> Memory<V> {
    /// What is known of this input.
    pub fn get(&self, namespace: &str, input: &KeyedDigest) -> Option<V> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let uses = kept.uses;
        let used = kept.namespaces.get_mut(namespace)?.get_mut(input)?;
        used.last = uses;
        Some(used.value.clone())
    }

    /// Keeps what is known of this input.
    pub fn put(&self, namespace: &str, input: KeyedDigest, value: V) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let last = kept.uses;
        let of_namespace = kept.namespaces.entry(namespace.to_owned()).or_default();
        if of_namespace.insert(input, Used { value, last }).is_none() {
            let full = of_namespace.len() > PER_NAMESPACE;
            kept.count += 1;
            if full {
                kept.drop_oldest(namespace);
            } else if kept.count > IN_ALL {
                kept.drop_of_largest();
            }
        }
    }
}

impl<V> Kept<V> {
    fn drop_of_largest(&mut self) {
        let largest = self.namespaces.iter().max_by_key(|(_, values)| values.len()).map(|(name, _)| name.clone());
        if let Some(largest) = largest {
            self.drop_oldest(&largest);
        }
    }

    fn drop_oldest(&mut self, namespace: &str) {
        let Some(values) = self.namespaces.get_mut(namespace) else { return };
        let oldest = values.iter().min_by_key(|(_, used)| used.last).map(|(input, _)| *input);
        if let Some(oldest) = oldest {
            values.remove(&oldest);
            self.count -= 1;
        }
        if values.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}
