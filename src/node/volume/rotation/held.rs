//! The files that a volume holds, as a fetch may read them back instead of converting the same value again.
//!
//! What is known of them is what was written last; what is read is compared with that by digest. Writes nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::{blocking, medium};
use super::state::{Volume, Wrote};
use crate::backend::HeldFiles;
use crate::model::{FileName, SecretBytes};

/// How long reading may wait for a thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// One volume's files.
pub(super) struct VolumeFiles<'a> {
    volume: &'a Arc<Volume>,
    wrote: &'a Wrote,
}

impl<'a> VolumeFiles<'a> {
    /// The files of a volume that holds what was converted; nothing where no value was.
    pub(super) fn of(volume: &'a Arc<Volume>, wrote: Option<&'a Wrote>) -> Option<VolumeFiles<'a>> {
        wrote.filter(|wrote| wrote.conversions.is_some()).map(|wrote| VolumeFiles { volume, wrote })
    }
}

#[async_trait]
impl HeldFiles for VolumeFiles<'_> {
    fn converted(&self, source: &[u8; 32]) -> Option<[u8; 32]> {
        let conversions = self.wrote.conversions.as_deref()?;
        // In order of their sources, see `refresh::wrote`.
        let at = conversions.binary_search_by_key(source, |conversion| conversion.source).ok()?;
        conversions.get(at).map(|conversion| conversion.files)
    }

    async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>> {
        // An unpublish says so before it clears; what is published there next is another volume.
        if self.volume.lock.epoch() != self.volume.epoch {
            return None;
        }
        let target = self.volume.target.clone();
        let read =
            blocking(&self.volume.target, Instant::now() + PATIENCE, move || medium::read(&target, &names)).await;
        // Whatever it was, the value can be converted.
        read.ok().flatten()
    }
}
