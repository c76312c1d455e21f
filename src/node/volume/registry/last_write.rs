//! What a volume holds since its last write: digests, expiry and object versions, never content.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::super::layout::{self, Digest, Group};
use crate::backend::FetchIdentity;
use crate::backend::external::limits::HELD;
use crate::model::{Conversion, ObjectVersion, Payload};
use crate::platform::process;

/// What the last write left in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct LastWrite {
    pub(in crate::node) content: Digest,
    pub(in crate::node) versions: Digest,
    /// The earliest expiry among the objects, in Unix seconds.
    pub(super) expires: Option<i64>,
    /// The sources of converted files, sorted by source; `None` if no file was converted.
    pub(in crate::node) conversions: Option<Arc<[Conversion]>>,
    /// The versions themselves, if the next request has to name them to the provider.
    pub(in crate::node) held: Option<Arc<[ObjectVersion]>>,
}

impl LastWrite {
    /// What a volume of this group holds after a write of `payload`, which this identity fetched.
    pub(in crate::node) fn of(payload: &Payload, group: Option<Group>, identity: &FetchIdentity) -> LastWrite {
        let size: usize = payload.versions().iter().map(|held| held.id.len() + held.version.len()).sum();
        let held = (identity.is_of_volume() && size <= HELD).then(|| payload.versions().into());
        let content = layout::content_digest(&layout::facts(payload, group, process::own_group()));
        let (versions, expires) = (versions_digest(payload.versions()), payload.expires());
        LastWrite { content, versions, expires, conversions: conversions(payload), held }
    }
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
