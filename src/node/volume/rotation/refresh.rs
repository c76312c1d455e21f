//! One volume brought up to date with what was fetched, if it differs from what was written last.
//!
//! Fetches nothing and tells nobody; `cycle` does. What is on the target is proven anew and written by `medium`, under the
//! target's lock, and only if the volume is still the one that was published
//! (docs/decisions.md#d9).

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::error::Error;
use super::super::layout::{self, Digest, Group};
use super::super::{Volumes, blocking, medium};
use super::state::{Volume, Wrote};
use crate::backend::FetchIdentity;
use crate::backend::external::limits::HELD;
use crate::model::{Conversion, ObjectVersion, Payload};
use crate::platform::process;

/// How long a write waits for somebody else's.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refreshed {
    /// It holds what was fetched already.
    Unchanged,
    /// It holds what was fetched now.
    Changed,
    /// It is not there any more, and nothing was written.
    Gone,
}

impl Volumes {
    /// Makes a published volume hold exactly `payload`.
    ///
    /// # Errors
    /// What the kernel says; readers see the old content then.
    pub(super) async fn refresh(&self, volume: &Arc<Volume>, payload: Arc<Payload>) -> Result<Refreshed, Error> {
        let deadline = Instant::now() + PATIENCE;
        let writing = self.lock(&volume.target, &volume.lock, deadline).await?;
        // An unpublish says so before it waits for the lock.
        if volume.lock.epoch() != volume.epoch {
            return Ok(Refreshed::Gone);
        }
        let (site, group) = (self.site(&volume.target), volume.group);
        blocking(&volume.target, deadline, move || {
            let _held = writing;
            Ok(match medium::refill(&site, &payload, group)? {
                None => Refreshed::Gone,
                Some(super::super::writer::Written::Unchanged) => Refreshed::Unchanged,
                Some(super::super::writer::Written::Changed) => Refreshed::Changed,
            })
        })
        .await
    }
}

/// What a volume of this group holds that was filled from `payload`, which this identity got.
pub(in crate::node::volume) fn wrote(payload: &Payload, group: Option<Group>, identity: &FetchIdentity) -> Wrote {
    let size: usize = payload.versions().iter().map(|held| held.id.len() + held.version.len()).sum();
    let held = (identity.is_of_volume() && size <= HELD).then(|| payload.versions().into());
    let content = layout::content_digest(&layout::facts(payload, group, process::own_group()));
    let (versions, expires) = (versions_digest(payload.versions()), payload.expires());
    Wrote { content, versions, expires, conversions: conversions(payload), held }
}

fn conversions(payload: &Payload) -> Option<Arc<[Conversion]>> {
    let mut sorted = payload.conversions().to_vec();
    sorted.sort_by_key(|conversion| conversion.source);
    (!sorted.is_empty()).then(|| sorted.into())
}

fn versions_digest(versions: &[ObjectVersion]) -> Digest {
    let mut sorted: Vec<&ObjectVersion> = versions.iter().collect();
    sorted.sort();
    let mut digest = Sha256::new();
    for part in sorted.iter().flat_map(|version| [&version.id, &version.version]) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
