//! The objects that were fetched within the freshness window, for callers of the same identity.
//!
//! Many pods of a workload start at once and need the same objects: one request serves them all.
//! Identities share nothing, or a pod could bypass the vault's access control
//! (docs/decisions.md#d6).
//!
//! # Guarantees
//! An object is returned only within the window after its request, and dropped within two windows.
//! A window of zero shares nothing. A refresh gets only objects that were requested after it began.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use super::error::Error;
use super::fetch_permits::with_permit;
use super::identity::Identity;
use super::object_type::ObjectType;
use super::objects::{VaultCertificate, VaultKey, VaultSecret, VersionInfo};
use super::single_flight::{Cacheable, Capacity, FetchRequest, SharedFetches};
use crate::model::ExposeSecret as _;

/// For each type of object: what the pods of a full node need within the window.
const CAPACITY: Capacity = Capacity { values: 1024, bytes: 8 << 20 };

/// All that determines the vault's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ObjectKey {
    /// Includes the authority and the tenant.
    pub(super) identity: Identity,
    /// The vault's host.
    pub(super) host: String,
    pub(super) object_type: ObjectType,
    /// In lower case, as vaults ignore case.
    pub(super) name: String,
    /// `None` is the newest.
    pub(super) version: Option<String>,
}

pub(super) struct CachedObject<T> {
    value: Arc<T>,
    requested: Instant,
    until: Instant,
}

/// The size of an object in memory.
pub(super) trait Size {
    /// In bytes, without the fixed part that all values of the type have.
    fn bytes(&self) -> usize;
}

/// The fetches and values of one type of object.
pub(super) type ObjectFetches<T> = SharedFetches<ObjectKey, CachedObject<T>>;

/// The process's cache. Cheap to clone; all clones share it.
#[derive(Clone)]
pub(super) struct ObjectCache {
    window: Duration,
    pub(super) secrets: ObjectFetches<VaultSecret>,
    pub(super) keys: ObjectFetches<VaultKey>,
    pub(super) certificates: ObjectFetches<VaultCertificate>,
    pub(super) versions: ObjectFetches<Vec<VersionInfo>>,
}

impl ObjectCache {
    pub(super) fn new(window: Duration) -> ObjectCache {
        ObjectCache {
            window,
            secrets: SharedFetches::new(CAPACITY),
            keys: SharedFetches::new(CAPACITY),
            certificates: SharedFetches::new(CAPACITY),
            versions: SharedFetches::new(CAPACITY),
        }
    }

    /// A fresh object from `objects`, or else the result of `fetch`, which runs once for all
    /// callers that wait.
    ///
    /// With `since`, an object is fresh if it was requested after that, instead of within the
    /// window.
    ///
    /// # Errors
    /// See [`SharedFetches::get`].
    pub(super) async fn get<T: Size + Send + Sync + 'static, F>(
        &self,
        objects: &ObjectFetches<T>,
        request: FetchRequest<'_, ObjectKey>,
        since: Option<Instant>,
        fetch: impl Fn() -> F,
    ) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let window = self.window;
        if window.is_zero() {
            let permit = request.permits.acquire(&request.priority, request.deadline).await?;
            return with_permit(permit, fetch().boxed()).await.map(Arc::new);
        }
        let fetch = || {
            let (requested, fetching) = (Instant::now(), fetch());
            let until = requested + window;
            async move { Ok(CachedObject { value: Arc::new(fetching.await?), requested, until }) }.boxed()
        };
        let fresh = |cached: &CachedObject<T>| match since {
            Some(since) => cached.requested >= since,
            None => cached.requested.elapsed() < window,
        };
        // Before the fetch, so that the value of a cancelled caller is swept, too.
        objects.sweep_every(window);
        Ok(objects.get(request, fresh, fetch).await?.value)
    }
}

impl<T> Clone for CachedObject<T> {
    fn clone(&self) -> CachedObject<T> {
        CachedObject { value: self.value.clone(), requested: self.requested, until: self.until }
    }
}

impl<T: Size + Send + Sync + 'static> Cacheable for CachedObject<T> {
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
