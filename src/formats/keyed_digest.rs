//! Keyed digests: they distinguish values in memory, and reveal nothing about them without the key.
//!
//! HMAC-SHA-256 (RFC 2104) over parts, each prefixed by its length. The caller supplies the random
//! key.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The digest of some parts; comparable only with digests under the same key.
pub type KeyedDigest = [u8; 32];

/// Key for [`KeyedDigest`]s.
#[derive(Clone)]
pub struct DigestKey(Hmac<Sha256>);

impl DigestKey {
    /// Uses random bytes as the key.
    pub fn new(random: [u8; 32]) -> DigestKey {
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..random.len()].copy_from_slice(&random);
        DigestKey(Hmac::new(&block))
    }

    /// The digest of these parts: that of `["ab", "c"]` differs from that of `["a", "bc"]`.
    pub fn digest(&self, parts: &[&[u8]]) -> KeyedDigest {
        let mut digest = self.0.clone();
        for part in parts {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into_bytes().into()
    }
}

/// Hides the key.
impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestKey").finish_non_exhaustive()
    }
}
