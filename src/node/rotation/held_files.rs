//! The files of a volume, which a fetch may read instead of converting the same value again.
//!
//! The digests are those of the last write; the fetch compares the content with them.

use async_trait::async_trait;

use crate::backend::HeldFiles;
use crate::model::{Conversion, FileName, SecretBytes};
use crate::node::volume::registry::{LastWrite, TrackedVolume};

/// The converted files of one volume.
pub(super) struct VolumeFiles<'a> {
    volume: &'a TrackedVolume,
    /// Sorted by source.
    conversions: &'a [Conversion],
}

impl<'a> VolumeFiles<'a> {
    /// `None` if the last write is unknown, or wrote no converted file.
    pub(super) fn of(volume: &'a TrackedVolume, last_write: Option<&'a LastWrite>) -> Option<VolumeFiles<'a>> {
        let conversions = last_write?.conversions.as_deref()?;
        Some(VolumeFiles { volume, conversions })
    }
}

#[async_trait]
impl HeldFiles for VolumeFiles<'_> {
    fn converted(&self, source: &[u8; 32]) -> Option<[u8; 32]> {
        let at = self.conversions.binary_search_by_key(source, |conversion| conversion.source).ok()?;
        self.conversions.get(at).map(|conversion| conversion.files)
    }

    async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>> {
        self.volume.read(names).await
    }
}
