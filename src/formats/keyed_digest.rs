//! Digests under a key: they tell values apart in memory, and say nothing about them to a reader without the key.
//!
//! HMAC-SHA-256 (RFC 2104) over parts, each with its length. The caller brings the key; nothing here is random.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The digest of some parts; comparable with others of the same key only.
pub type KeyedDigest = [u8; 32];

/// A key of digests.
#[derive(Clone)]
pub struct DigestKey(Hmac<Sha256>);

impl DigestKey {
    /// Takes random bytes as the key.
    pub fn new(random: [u8; 32]) -> DigestKey {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..random.len()].copy_from_slice(&random);
        DigestKey(Hmac::new(&block))
    }

    /// The digest of these parts: `["ab", "c"]` has another one than `["a", "bc"]`.
    pub fn digest(&self, parts: &[&[u8]]) -> KeyedDigest {
        let mut digest = self.0.clone();
        for part in parts {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into_bytes().into()
    }
}

/// Shows nothing of the key.
impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestKey").finish_non_exhaustive()
    }
}
