//! The process's tokens, one per identity and scope, fetched once for all callers that wait.
//!
//! Does not fetch tokens: `session` brings the fetch. Never returns a token to another identity.
//!
//! # Guarantees
//! At most one request per identity and scope runs. A refused token is replaced once, and its
//! replacement not within [`REFUSAL_INTERVAL`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::challenge::Scope;
use super::error::Error;
use super::identity::Identity;
use super::single_flight::{Cacheable, Capacity, FetchRequest, SharedFetches};
use crate::model::{ExposeSecret as _, SecretString};

/// Each token costs some 3 KiB.
const CAPACITY: Capacity = Capacity { values: 1024, bytes: usize::MAX };

/// How long before its expiration a token is no longer used, at most.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5 * 60);

/// How long the replacement of a refused token is not replaced: a vault that refuses two accepts no
/// third.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);

/// How often expired tokens are dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Token {
    /// The whole value of the Authorization header.
    pub(super) bearer: SecretString,
    /// Until when it is used.
    pub(super) until: Instant,
}

/// What happens to a token that a vault refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was dropped; the next caller fetches another one.
    Dropped,
    /// Another one has replaced it already.
    Replaced,
    /// It stays: it has just replaced another one that was refused.
    Kept,
}

pub(super) type TokenKey = (Identity, Scope);

/// The process's cache of tokens. Cheap to clone; all clones share it.
#[derive(Clone)]
pub(super) struct TokenCache {
    fetches: SharedFetches<TokenKey, Arc<Token>>,
    /// When tokens were last refused.
    refused: Arc<Mutex<HashMap<TokenKey, Instant>>>,
}

/// How long a token with this lifetime is used: five minutes less, or a tenth less if that is
/// shorter.
pub(super) fn usable_for(lifetime: Duration) -> Duration {
    lifetime - EXPIRY_MARGIN.min(lifetime / 10)
}

impl Cacheable for Arc<Token> {
    fn until(&self) -> Instant {
        self.until
    }

    fn bytes(&self) -> usize {
        self.bearer.expose_secret().len()
    }
}

impl Default for TokenCache {
    fn default() -> TokenCache {
        TokenCache { fetches: SharedFetches::new(CAPACITY), refused: Arc::default() }
    }
}

impl TokenCache {
    /// The token of this identity and scope: cached, or the result of `fetch`, which runs once for
    /// all callers that wait.
    ///
    /// # Errors
    /// That of the fetch, or a timeout at the deadline.
    pub(super) async fn token(
        &self,
        request: FetchRequest<'_, TokenKey>,
        fetch: impl Fn() -> BoxFuture<'static, Result<Arc<Token>, Error>>,
    ) -> Result<Arc<Token>, Error> {
        self.fetches.sweep_every(SWEEP_INTERVAL);
        self.fetches.get(request, |token| Instant::now() < token.until, fetch).await
    }

    /// Drops a token that a vault refused, unless it was replaced already.
    pub(super) fn refuse(&self, key: TokenKey, token: &Arc<Token>) -> Refused {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        refused.retain(|_, when| now < *when + REFUSAL_INTERVAL);
        let refused_recently = refused.contains_key(&key);
        let same = |current: &Arc<Token>| Arc::ptr_eq(current, token);
        if refused_recently {
            return if self.fetches.has(&key, same) { Refused::Kept } else { Refused::Replaced };
        }
        if !self.fetches.drop_if(&key, same) {
            return Refused::Replaced;
        }
        refused.insert(key, now);
        Refused::Dropped
    }
}
