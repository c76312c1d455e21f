//! What proves to Entra ID who asks, in place of a secret: a service account's token, or a text that a certificate's key signed.
//!
//! The latter comes from `key_pair`. Reads a service account's token only for its subject and its end, and believes
//! neither: checking the signature is Entra ID's part. Control goes back to `session`, which sends the assertion to
//! its authority.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_core::time::OffsetDateTime;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;

use super::identity::Identity;
use crate::model::{ExposeSecret as _, SecretString};

/// How many identities' tokens are remembered; each costs some 1.5 KiB.
const REMEMBERED: usize = 1024;

/// A service account's token, or another signed text.
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
