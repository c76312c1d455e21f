//! What proves to Entra ID who asks, in place of a secret: a service account's token, or a text that a certificate's key signed.
//!
//! Reads a token only for its subject and its end, and believes neither: checking the signature is Entra ID's part. Control goes
//! back to `session`, which sends the assertion to its authority.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::ClientMethodOptions;
use azure_core::time::OffsetDateTime;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::error::Error;
use super::identity::Identity;
use crate::model::{ExposeSecret as _, SecretString};

/// How many identities' tokens are remembered; each costs some 1.5 KiB.
const REMEMBERED: usize = 1024;

/// How long a signed assertion is valid: ten minutes, as Microsoft's own libraries choose.
const SIGNED_FOR: i64 = 600;

/// A service account's token.
#[derive(Debug, Clone)]
pub(super) struct Federated(pub(super) SecretString);

#[async_trait]
impl ClientAssertion for Federated {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose_secret().to_owned())
    }
}

impl Federated {
    /// When the token ends, in seconds since 1970, if it says so.
    pub(super) fn expiry(&self) -> Option<i64> {
        self.claims()["exp"].as_f64().map(|seconds| seconds as i64)
    }

    /// Whether the token names another service account than this one. One that cannot be read names none.
    pub(super) fn is_anothers(&self, namespace: &str, service_account: &str) -> bool {
        let own = format!("system:serviceaccount:{namespace}:{service_account}");
        self.claims()["sub"].as_str().is_some_and(|subject| subject != own)
    }

    /// Whether the token names this service account.
    pub(super) fn is_of(&self, namespace: &str, service_account: &str) -> bool {
        let own = format!("system:serviceaccount:{namespace}:{service_account}");
        self.claims()["sub"].as_str().is_some_and(|subject| subject == own)
    }

    fn claims(&self) -> Value {
        let payload = self.0.expose_secret().split('.').nth(1).map(|text| text.trim_end_matches('='));
        let payload = payload.and_then(|text| BASE64.decode(text).ok());
        payload.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }
}

/// The process's memory of the freshest service account token per identity. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct Assertions {
    freshest: Arc<Mutex<HashMap<Identity, (i64, SecretString)>>>,
}

impl Assertions {
    /// Remembers a token, if it ends later than the one that is known.
    pub(super) fn remember(&self, identity: Identity, token: &Federated) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let Some(expiry) = token.expiry().filter(|expiry| *expiry > now) else {
            return;
        };
        let mut freshest = self.freshest.lock().unwrap_or_else(PoisonError::into_inner);
        freshest.retain(|_, (expiry, _)| *expiry > now);
        if freshest.get(&identity).is_some_and(|(known, _)| *known >= expiry) {
            return;
        }
        if freshest.len() >= REMEMBERED && !freshest.contains_key(&identity) {
            let soonest = freshest.iter().min_by_key(|(_, (expiry, _))| *expiry).map(|(identity, _)| *identity);
            if let Some(soonest) = soonest.filter(|_| freshest.len() >= REMEMBERED) {
                freshest.remove(&soonest);
            }
        }
        freshest.insert(identity, (expiry, token.0.clone()));
    }

    /// The freshest token of this identity that has not ended.
    pub(super) fn freshest(&self, identity: Identity) -> Option<Federated> {
        let mut freshest = self.freshest.lock().unwrap_or_else(PoisonError::into_inner);
        let (expiry, token) = freshest.get(&identity)?;
        if *expiry > OffsetDateTime::now_utc().unix_timestamp() {
            return Some(Federated(token.clone()));
        }
        freshest.remove(&identity);
        None
    }

    /// Forgets a token that Entra ID refused, if it is still the freshest.
    pub(super) fn forget(&self, identity: Identity, refused: &Federated) {
        let mut freshest = self.freshest.lock().unwrap_or_else(PoisonError::into_inner);
        if freshest.get(&identity).is_some_and(|(_, known)| known.expose_secret() == refused.0.expose_secret()) {
            freshest.remove(&identity);
        }
    }
}

/// A certificate and its key, which sign an assertion for every token request.
pub(super) struct Signer {
    key: RsaKeyPair,
    client_id: String,
    audience: String,
    sha1: String,
    sha256: String,
}

impl Signer {
    /// Takes a certificate and its private key; `audience` is the token endpoint.
    ///
    /// # Errors
    /// A key that Entra ID does not accept, that cannot be read, or that is not the certificate's.
    pub(super) fn new(client_id: &str, audience: String, certificate: &[u8], pkcs8: &[u8]) -> Result<Signer, Error> {
        let key = RsaKeyPair::from_pkcs8(pkcs8).map_err(|error| match error.to_string().as_str() {
            "WrongAlgorithm" => Error::Credential("the certificate's key is not RSA, and Entra ID accepts no other"),
            "TooSmall" | "TooLarge" => {
                Error::Credential("the certificate's private key is not an RSA key of 2048 to 4096 bits")
            }
            _ => Error::DamagedKey("its numbers do not make an RSA key of 2048 to 4096 bits"),
        })?;
        // A certificate holds its public key in the very encoding that ring gives, so that it need not be parsed.
        let public = key.public().as_ref();
        if !certificate.windows(public.len()).any(|window| window == public) {
            return Err(Error::DamagedKey("it does not belong to the certificate"));
        }
        let digest = |algorithm| BASE64.encode(ring::digest::digest(algorithm, certificate));
        Ok(Signer {
            client_id: client_id.to_owned(),
            audience,
            // Entra ID finds the certificate by it; nothing rests on its strength.
            sha1: digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: digest(&ring::digest::SHA256),
            key,
        })
    }

    /// A new assertion, valid from `now` on.
    ///
    /// # Errors
    /// [`Error::DamagedKey`] when the signature is not one by this key: some of its numbers are wrong, which shows only here. `None`
    /// when the system has no random numbers.
    pub(super) fn sign(&self, now: i64) -> Result<String, Option<Error>> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| None)?;
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t": self.sha1, "x5t#S256": self.sha256 });
        let claims = json!({
            "aud": self.audience, "iss": self.client_id, "sub": self.client_id, "jti": hex::encode(id),
            "iat": now, "nbf": now, "exp": now + SIGNED_FOR,
        });
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let signed = self.key.sign(&RSA_PSS_SHA256, &random, text.as_bytes(), &mut signature);
        signed.map_err(|_| Error::DamagedKey("what it signs does not fit its public half"))?;
        Ok(format!("{text}.{}", BASE64.encode(signature)))
    }
}

#[async_trait]
impl ClientAssertion for Signer {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.sign(now).map_err(|error| match error {
            Some(error) => azure_core::Error::new(ErrorKind::Credential, error),
            None => azure_core::Error::with_message(ErrorKind::Credential, "no random numbers"),
        })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}
