//! The process's tokens, one per identity and scope, fetched once for all who want one.
//!
//! Does not know how a token is fetched, nor what it opens; never gives one identity another's. Control comes from `session`,
//! and goes back to it whenever a token has to be fetched.
//!
//! # Guarantees
//! At most one request per identity and scope is under way. A refused token is replaced once, and not again within [`PATIENCE`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::challenge::Scope;
use super::error::Error;
use super::flight::{Flights, Lasting, Room, Wanted};
use super::identity::Identity;
use crate::model::{ExposeSecret as _, SecretString};

/// How many tokens are kept. Each costs some 3 KiB.
const ROOM: Room = Room { values: 1024, bytes: usize::MAX };

/// How long before its end a token is used no more, at most.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// For how long the replacement of a refused token is not replaced itself: a vault that refuses two accepts no third.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often tokens that have ended are wiped.
const SWEEP: Duration = Duration::from_secs(60);

/// A token that can be used.
pub(super) struct Token {
    /// The whole value of the Authorization header.
    pub(super) bearer: SecretString,
    /// Until when it is used.
    pub(super) until: Instant,
}

/// What became of a token that a vault refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is dropped; the next one is fetched for everybody.
    Dropped,
    /// There is another one already.
    Replaced,
    /// It stays: it has just replaced another one that was refused.
    Kept,
}

/// Whose token, and for what.
pub(super) type Key = (Identity, Scope);

/// The process's memory of tokens. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Tokens {
    flights: Flights<Key, Arc<Token>>,
    /// When tokens were last refused.
    refused: Arc<Mutex<HashMap<Key, Instant>>>,
}

/// Until when a token is used that lives this long: five minutes less, or a tenth, whichever is smaller.
pub(super) fn usable(life: Duration) -> Duration {
    life - MARGIN.min(life / 10)
}

impl Lasting for Arc<Token> {
    fn until(&self) -> Instant {
        self.until
    }

    fn bytes(&self) -> usize {
        self.bearer.expose_secret().len()
    }
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens { flights: Flights::new(ROOM), refused: Arc::default() }
    }
}

impl Tokens {
    /// The token of this identity and scope: known, or fetched by `fetch`, which runs once for all who wait.
    ///
    /// # Errors
    /// What fetching it brought, or that it took longer than the deadline.
    pub(super) async fn token(
        &self,
        wanted: Wanted<'_, Key>,
        fetch: impl Fn() -> BoxFuture<'static, Result<Arc<Token>, Error>>,
    ) -> Result<Arc<Token>, Error> {
        self.flights.sweep_every(SWEEP);
        self.flights.get(wanted, |token| Instant::now() < token.until, fetch).await
    }

    /// Drops a token that a vault refused, unless it is another one by now.
    pub(super) fn refuse(&self, key: Key, token: &Arc<Token>) -> Refused {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        refused.retain(|_, when| now < *when + PATIENCE);
        let patience = refused.contains_key(&key);
        let same = |current: &Arc<Token>| Arc::ptr_eq(current, token);
        if patience {
            return if self.flights.has(&key, same) { Refused::Kept } else { Refused::Replaced };
        }
        if !self.flights.drop_if(&key, same) {
            return Refused::Replaced;
        }
        refused.insert(key, now);
        Refused::Dropped
    }
}
