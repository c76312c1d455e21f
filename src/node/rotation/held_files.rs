//! The files of a volume, which a fetch may read back instead of converting the same value again.
//!
//! Identifies a file by the digest recorded at the last write, which the fetch compares with the file's content. Writes
//! nothing.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{Conversion, FileName, SecretBytes};
use crate::node::volume::HeldFiles;
use crate::node::volume::registry::{LastWrite, TrackedVolume};

/// The converted files of one volume.
pub(super) struct ConvertedFiles<'a> {
    volume: &'a TrackedVolume,
    /// Sorted by source.
    conversions: &'a [Conversion],
}

impl<'a> ConvertedFiles<'a> {
    /// `None` if the volume is not known to hold a converted file.
    pub(super) fn of(volume: &'a Arc<TrackedVolume>, last: Option<&'a LastWrite>) -> Option<ConvertedFiles<'a>> {
        let conversions = last?.conversions.as_deref()?;
        Some(ConvertedFiles { volume, conversions })
    }
}

#[async_trait]
impl HeldFiles for ConvertedFiles<'_> {
    fn converted(&self, source: &[u8; 32]) -> Option<[u8; 32]> {
        let at = self.conversions.binary_search_by_key(source, |conversion| conversion.source).ok()?;
        self.conversions.get(at).map(|conversion| conversion.files)
    }

    async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>> {
        self.volume.read(names).await
    }
}
