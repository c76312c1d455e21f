//! An issuer of tokens, such as a Kubernetes cluster, with a key that this emulator made.
//!
//! It signs whatever a test asks for, right or wrong. Whether a token is good is decided by
//! `entra::credentials`, which finds the public key in the world under the issuer's address.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::random;
use crate::world::{WorldError, now};

/// An issuer that Entra ID can be told to trust. Clones have the same key.
#[derive(Debug, Clone)]
pub struct Issuer {
    url: String,
    kid: String,
    key: Arc<EcdsaKeyPair>,
}

impl Issuer {
    /// Makes a key for an issuer.
    pub(crate) fn new(url: &str) -> Result<Issuer, WorldError> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| WorldError::NoRandomness)?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        let key = Arc::new(key.map_err(|_| WorldError::NoRandomness)?);
        Ok(Issuer { url: url.to_owned(), kid: random::hex_id(), key })
    }

    /// The address that stands in `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key's name, which stands in the header of every token.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A token in the form of Kubernetes' service account tokens, signed with ES256.
    ///
    /// `extra` is a JSON object of further claims, or null; it can also replace those made here,
    /// such as `exp` or `nbf`. A lifetime of zero gives a token that has expired.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[track_caller]
    pub fn token(&self, subject: &str, audience: &str, lifetime: Duration, extra: Value) -> String {
        match self.sign(subject, audience, lifetime, extra) {
            Ok(token) => token,
            Err(error) => panic!("azure-emulator: {error}"),
        }
    }

    pub(crate) fn sign(
        &self,
        subject: &str,
        audience: &str,
        lifetime: Duration,
        extra: Value,
    ) -> Result<String, WorldError> {
        let now = now();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let mut claims = json!({
            "aud": [audience],
            "exp": now.saturating_add(lifetime),
            "iat": now,
            "iss": self.url,
            "jti": random::guid(),
            "nbf": now,
            "sub": subject,
        });
        if let (Value::Object(claims), Value::Object(extra)) = (&mut claims, extra) {
            claims.extend(extra);
        }
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "JWT" });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| WorldError::NoRandomness)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The public key, a point of P-256.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }
}
