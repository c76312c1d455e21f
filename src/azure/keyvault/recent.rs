//! Objects that were fetched a moment ago, for everybody of the same identity.
//!
//! Many pods of one workload start at once and want the same objects; they get them from one request. Nothing is shared between
//! identities, for that would be a way round the vault's access control (docs/decisions.md#d6).
//! Control comes from `vault`.
//!
//! # Guarantees
//! An object is given out as long as it was asked for within the window, and wiped within two windows. A window of zero shares nothing.
//! A refresh gets what was asked for since it began, and nothing older.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::challenge::ObjectType;
use super::error::Error;
use super::flight::{Flights, Lasting, Room, Wanted};
use super::identity::Identity;
use super::objects::{VaultCertificate, VaultKey, VersionInfo};
use super::places;
use super::vault::VaultSecret;
use crate::model::ExposeSecret as _;

/// How much is kept of each kind of objects: what a full node starts within the window.
const ROOM: Room = Room { values: 1024, bytes: 8 << 20 };

/// Which object, for whom: all that decides what the vault answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Who asks, with the authority and the tenant.
    pub(super) identity: Identity,
    /// The vault's host.
    pub(super) host: String,
    pub(super) kind: ObjectType,
    /// The object's name, in lower case: vaults do not tell cases apart.
    pub(super) name: String,
    /// The version; `None` is the newest.
    pub(super) version: Option<String>,
}

/// Something that was fetched, and when it was asked for.
pub(super) struct Fetched<T> {
    value: Arc<T>,
    asked: Instant,
    until: Instant,
}

/// How large something is.
pub(super) trait Size {
    /// Its size in bytes, without what every value has.
    fn bytes(&self) -> usize;
}

/// The memory of one type of objects.
pub(super) type Objects<T> = Flights<Key, Fetched<T>>;

/// The process's memory of objects. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Recent {
    window: Duration,
    pub(super) secrets: Objects<VaultSecret>,
    pub(super) keys: Objects<VaultKey>,
    pub(super) certificates: Objects<VaultCertificate>,
    pub(super) versions: Objects<Vec<VersionInfo>>,
}

impl Recent {
    /// An empty memory that gives things out for `window` after they were asked for.
    pub(super) fn new(window: Duration) -> Recent {
        let (secrets, keys) = (Flights::new(ROOM), Flights::new(ROOM));
        Recent { window, secrets, keys, certificates: Flights::new(ROOM), versions: Flights::new(ROOM) }
    }

    /// What `objects` has of this key, or what `fetch` brings, which runs once for all who wait.
    ///
    /// `since` says from when on it must have been asked for, instead of the window.
    ///
    /// # Errors
    /// What fetching it brought; see [`Flights::get`].
    pub(super) async fn get<T: Size + Send + Sync + 'static, F>(
        &self,
        objects: &Objects<T>,
        wanted: Wanted<'_, Key>,
        since: Option<Instant>,
        fetch: impl Fn() -> F,
    ) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let window = self.window;
        if window.is_zero() {
            let place = wanted.claim.take(&wanted.rank, wanted.deadline).await?;
            return places::within(place, fetch().boxed()).await.map(Arc::new);
        }
        let fetch = || {
            let (asked, fetching) = (Instant::now(), fetch());
            let until = asked + window;
            async move { Ok(Fetched { value: Arc::new(fetching.await?), asked, until }) }.boxed()
        };
        let young = |fetched: &Fetched<T>| match since {
            Some(since) => fetched.asked >= since,
            None => fetched.asked.elapsed() < window,
        };
        // Before the fetch: one that is given up, or fails, is swept as well.
        objects.sweep_every(window);
        Ok(objects.get(wanted, young, fetch).await?.value)
    }
}

impl<T> Clone for Fetched<T> {
    fn clone(&self) -> Fetched<T> {
        Fetched { value: self.value.clone(), asked: self.asked, until: self.until }
    }
}

impl<T: Size + Send + Sync + 'static> Lasting for Fetched<T> {
    fn until(&self) -> Instant {
        self.until
    }

    fn bytes(&self) -> usize {
        self.value.bytes()
    }
}

impl Size for VaultSecret {
    fn bytes(&self) -> usize {
        self.value.expose_secret().len()
    }
}

impl Size for VaultKey {
    fn bytes(&self) -> usize {
        [&self.n, &self.e, &self.x, &self.y].into_iter().flatten().map(Vec::len).sum()
    }
}

impl Size for VaultCertificate {
    fn bytes(&self) -> usize {
        self.der.len()
    }
}

impl Size for Vec<VersionInfo> {
    fn bytes(&self) -> usize {
        self.len() * (size_of::<VersionInfo>() + 32)
    }
}
