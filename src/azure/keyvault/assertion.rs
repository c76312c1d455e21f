//! Assertions: what proves an identity to Entra ID in place of a client secret. A service account's
//! token, or a text that a certificate's key signed (`key_pair`).
//!
//! Checks no signature: Entra ID does. `service_account` checks whose token it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_core::time::OffsetDateTime;
use azure_identity::ClientAssertion;

use super::identity::Identity;
use super::service_account::ServiceAccountToken;
use crate::model::{ExposeSecret as _, SecretString};

/// How many identities' tokens are kept; each costs some 1.5 KiB.
const MAX_IDENTITIES: usize = 1024;

/// In the form that the SDK asks for.
#[derive(Debug, Clone)]
pub(super) struct Assertion(pub(super) SecretString);

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose_secret().to_owned())
    }
}

/// The service account token of each identity that expires last. Cheap to clone; all clones share
/// it.
#[derive(Clone, Default)]
pub(super) struct AssertionCache {
    latest: Arc<Mutex<HashMap<Identity, (i64, SecretString)>>>,
}

impl AssertionCache {
    /// Keeps a token if it expires later than the one that is kept.
    pub(super) fn offer(&self, identity: Identity, account: &ServiceAccountToken) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let Some(expiry) = account.expires().filter(|_| account.may_share(now)) else {
            return;
        };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|_, (expiry, _)| *expiry > now);
        if latest.get(&identity).is_some_and(|(known, _)| *known >= expiry) {
            return;
        }
        if latest.len() >= MAX_IDENTITIES && !latest.contains_key(&identity) {
            let soonest = latest.iter().min_by_key(|(_, (expiry, _))| *expiry).map(|(identity, _)| *identity);
            if let Some(soonest) = soonest.filter(|_| latest.len() >= MAX_IDENTITIES) {
                latest.remove(&soonest);
            }
        }
        latest.insert(identity, (expiry, account.token().clone()));
    }

    /// The token of this identity that expires last, unless it has expired.
    pub(super) fn latest(&self, identity: Identity) -> Option<Assertion> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (expiry, token) = latest.get(&identity)?;
        if *expiry > OffsetDateTime::now_utc().unix_timestamp() {
            return Some(Assertion(token.clone()));
        }
        latest.remove(&identity);
        None
    }

    /// Drops a token that Entra ID refused, if it is still kept.
    pub(super) fn forget(&self, identity: Identity, refused: &Assertion) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.get(&identity).is_some_and(|(_, known)| known.expose_secret() == refused.0.expose_secret()) {
            latest.remove(&identity);
        }
    }
}
