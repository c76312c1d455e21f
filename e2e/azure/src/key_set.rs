//! The public keys of an external issuer, such as a real Kubernetes cluster.
//!
//! Pure: parses a JWKS document and verifies tokens with its keys. It skips keys of algorithms that
//! Kubernetes does not use, as Entra ID does with keys that it cannot use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;

use crate::assertion::Assertion;
use crate::error::{SetupError, invalid};

#[derive(Debug, Clone)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    kid: String,
    key: RsaPublicKeyComponents<Vec<u8>>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<JwksKey>,
}

#[derive(Deserialize)]
struct JwksKey {
    kty: String,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// Parses a JWKS document; it is an error if no key is an RSA key.
    pub(crate) fn parse(jwks: &str) -> Result<KeySet, SetupError> {
        let wrong = |rule: &str| invalid("JWKS", jwks, rule);
        let document: Document = serde_json::from_str(jwks).map_err(|error| wrong(&error.to_string()))?;
        let keys: Vec<Key> = document.keys.into_iter().filter_map(JwksKey::key).collect();
        if keys.is_empty() {
            return Err(wrong("it needs an RSA key with kid, n and e"));
        }
        Ok(KeySet(keys))
    }

    /// Whether the set has the key that the token's header names.
    pub(crate) fn has_key_of(&self, assertion: &Assertion<'_>) -> bool {
        self.key_of(assertion).is_some()
    }

    /// Whether the key that the token's header names signed it.
    pub(crate) fn has_signed(&self, assertion: &Assertion<'_>) -> bool {
        self.key_of(assertion).is_some_and(|known| {
            assertion.header.alg == "RS256"
                && known.key.verify(&RSA_PKCS1_2048_8192_SHA256, assertion.signed(), assertion.signature()).is_ok()
        })
    }

    fn key_of(&self, assertion: &Assertion<'_>) -> Option<&Key> {
        let kid = assertion.header.kid.as_deref()?;
        self.0.iter().find(|known| known.kid == kid)
    }
}

impl JwksKey {
    fn key(self) -> Option<Key> {
        let decoded = |part: Option<String>| URL_SAFE_NO_PAD.decode(part?).ok();
        let (n, e) = (decoded(self.n)?, decoded(self.e)?);
        (self.kty == "RSA").then_some(Key { kid: self.kid?, key: RsaPublicKeyComponents { n, e } })
    }
}
