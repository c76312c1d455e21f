//! The process's tokens, one per identity and scope, fetched once for all who want one.
//!
//! Does not know how a token is fetched, nor what it opens; never gives one identity another's. Control comes from `session`,
//! and goes back to it whenever a token has to be fetched.
//!
//! # Guarantees
//! At most one request per identity and scope is under way. A failure reaches those who brought the same proof and wait no longer
//! than the one who asked; others try by themselves. A refused token is replaced once, and not again within [`PATIENCE`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::challenge::Scope;
use super::error::{Error, Stop};
use super::identity::Identity;
use crate::model::SecretString;

/// How many tokens are kept. Each costs some 3 KiB.
const KEPT: usize = 1024;

/// How long before its end a token is used no more, at most.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// For how long the replacement of a refused token is not replaced itself: a vault that refuses two accepts no third.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much earlier another's deadline may be for his running out of time to count as one's own.
const TOLERANCE: Duration = Duration::from_secs(5);

/// A token that can be used.
pub(super) struct Token {
    /// The whole value of the Authorization header.
    pub(super) bearer: SecretString,
    /// Until when it is used.
    pub(super) until: Instant,
}

/// Who wants a token, and how long they wait for it.
pub(super) struct Wanted<'a> {
    pub(super) identity: Identity,
    pub(super) scope: &'a Scope,
    /// What tells this credential from others of the same identity.
    pub(super) proof: [u8; 32],
    pub(super) deadline: Instant,
    /// The host that gives out the token, for error texts.
    pub(super) host: &'a str,
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

type Asking = Shared<BoxFuture<'static, Result<Arc<Token>, Error>>>;
type Key = (Identity, Scope);

/// A token that is being fetched, or is known.
struct Entry {
    asking: Asking,
    proof: [u8; 32],
    deadline: Instant,
    /// When this one took the place of a refused one.
    replaced: Option<Instant>,
}

/// The process's memory of tokens. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct Tokens {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<Key, Entry>,
    /// When tokens were refused, for those that take their place.
    refused: HashMap<Key, Instant>,
}

/// Until when a token is used that lives this long: five minutes less, or a tenth, whichever is smaller.
pub(super) fn usable(life: Duration) -> Duration {
    life - MARGIN.min(life / 10)
}

impl Tokens {
    /// The token of this identity and scope: known, or fetched by `fetch`, which runs once for all who wait.
    ///
    /// # Errors
    /// What fetching it brought, or that it took longer than the deadline.
    pub(super) async fn token(
        &self,
        wanted: Wanted<'_>,
        fetch: impl Fn() -> BoxFuture<'static, Result<Arc<Token>, Error>>,
    ) -> Result<Arc<Token>, Error> {
        let started = Instant::now();
        loop {
            let (asking, same, deadline) = self.asking(&wanted, &fetch);
            let Ok(result) = tokio::time::timeout_at(wanted.deadline, asking).await else {
                let waited = started.elapsed();
                let last = Box::new(Error::NoAnswer { host: wanted.host.to_owned(), limit: waited });
                return Err(Error::GaveUp { stop: Stop::Deadline, tries: 1, waited, last });
            };
            // Who leads is always the same as himself, so that this ends.
            let too_early = deadline + TOLERANCE < wanted.deadline && matches!(&result, Err(error) if ran_out(error));
            if result.is_ok() || (same && !too_early) {
                return result;
            }
        }
    }

    /// What to wait for, whether it is asked for with the same proof, and when who asks for it gives up.
    fn asking(
        &self,
        wanted: &Wanted<'_>,
        fetch: impl Fn() -> BoxFuture<'static, Result<Arc<Token>, Error>>,
    ) -> (Asking, bool, Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (wanted.identity, wanted.scope.clone());
        let now = Instant::now();
        if let Some(entry) = known.entries.get(&key) {
            let usable = match entry.asking.peek() {
                Some(Ok(token)) => now < token.until,
                Some(Err(_)) => false,
                None => now < entry.deadline,
            };
            if usable {
                return (entry.asking.clone(), entry.proof == wanted.proof, entry.deadline);
            }
        }
        known.make_room(&key, now);
        let asking = fetch().shared();
        let replaced = known.refused.remove(&key).filter(|when| now < *when + PATIENCE);
        let entry = Entry { asking: asking.clone(), proof: wanted.proof, deadline: wanted.deadline, replaced };
        known.entries.insert(key, entry);
        (asking, true, wanted.deadline)
    }

    /// Drops a token that a vault refused, unless it is another one by now.
    pub(super) fn refuse(&self, identity: Identity, scope: &Scope, token: &Arc<Token>) -> Refused {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (identity, scope.clone());
        let now = Instant::now();
        let Some(entry) = known.entries.get(&key) else {
            return Refused::Replaced;
        };
        match entry.asking.peek() {
            Some(Ok(current)) if Arc::ptr_eq(current, token) => {}
            Some(Ok(_) | Err(_)) | None => return Refused::Replaced,
        }
        if entry.replaced.is_some_and(|when| now < when + PATIENCE) {
            return Refused::Kept;
        }
        known.entries.remove(&key);
        known.refused.retain(|_, when| now < *when + PATIENCE);
        known.refused.insert(key, now);
        Refused::Dropped
    }
}

/// Whether somebody's own deadline was the cause.
fn ran_out(error: &Error) -> bool {
    matches!(error, Error::GaveUp { stop: Stop::Deadline | Stop::AskedToWait(_), .. })
}

impl Known {
    /// Makes room for one more: what is of no use goes first, then what ends soonest.
    fn make_room(&mut self, key: &Key, now: Instant) {
        if self.entries.len() < KEPT || self.entries.contains_key(key) {
            return;
        }
        let until = |entry: &Entry| match entry.asking.peek() {
            Some(Ok(token)) => token.until,
            Some(Err(_)) => now,
            // Who waits for it keeps it alive.
            None => entry.deadline,
        };
        self.entries.retain(|_, entry| until(entry) > now);
        if self.entries.len() >= KEPT
            && let Some(soonest) = self.entries.iter().min_by_key(|(_, entry)| until(entry)).map(|(key, _)| key.clone())
        {
            self.entries.remove(&soonest);
        }
    }
}
