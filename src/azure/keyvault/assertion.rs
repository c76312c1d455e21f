//! What proves to Entra ID who asks, in place of a secret: a service account's token, or a text that a certificate's key signed.
//!
//! The latter comes from `key_pair`. Whose a token is, `service_account` has found out; checking the signature is Entra ID's
//! part. Control goes back to `session`, which sends the assertion to its authority.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_core::time::OffsetDateTime;
use azure_identity::ClientAssertion;

use super::identity::Identity;
use super::service_account::ServiceAccountToken;
use crate::model::{ExposeSecret as _, SecretString};

/// How many identities' tokens are remembered; each costs some 1.5 KiB.
const REMEMBERED: usize = 1024;

/// A service account's token, or another signed text, as the SDK wants it.
#[derive(Debug, Clone)]
pub(super) struct Federated(pub(super) SecretString);

#[async_trait]
impl ClientAssertion for Federated {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose_secret().to_owned())
    }
}

/// The process's memory of the freshest service account token per identity. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct Assertions {
    freshest: Arc<Mutex<HashMap<Identity, (i64, SecretString)>>>,
}

impl Assertions {
    /// Remembers a token, if it ends later than the one that is known.
    pub(super) fn remember(&self, identity: Identity, account: &ServiceAccountToken) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let Some(expiry) = account.expires().filter(|_| account.may_share(now)) else {
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
        freshest.insert(identity, (expiry, account.token().clone()));
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
