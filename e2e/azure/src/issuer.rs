//! An issuer of tokens, such as a Kubernetes cluster, with a key that the emulator generates.
//!
//! It signs any claims, also invalid ones. `entra::credentials` verifies tokens with the public key
//! that the state has for the issuer's address.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::clock::now;
use crate::error::SetupError;
use crate::random;

/// An issuer whose tokens a federated credential can accept. Clones have the same key.
#[derive(Debug, Clone)]
pub struct Issuer {
    url: String,
    kid: String,
    key: Arc<EcdsaKeyPair>,
}

impl Issuer {
    pub(crate) fn new(url: &str) -> Result<Issuer, SetupError> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| SetupError::NoRandomness)?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        let key = Arc::new(key.map_err(|_| SetupError::NoRandomness)?);
        Ok(Issuer { url: url.to_owned(), kid: random::hex_id(), key })
    }

    /// The `iss` claim of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The id of its key, in the header of every token.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A token like a Kubernetes service account token, signed with ES256.
    ///
    /// `extra` is a JSON object of further claims, or null; it can replace the usual ones, such as
    /// `exp` or `nbf`. A token with a lifetime of zero has expired.
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
    ) -> Result<String, SetupError> {
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
        let signature = signature.map_err(|_| SetupError::NoRandomness)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A P-256 point.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }
}
