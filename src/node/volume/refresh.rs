//! Refreshing a published volume: write the payload that rotation fetched, if the volume is still the same one.
//!
//! Fetches nothing and reports nothing; `node::rotation` does. `medium` proves the target anew and writes, under the
//! target's lock (docs/decisions.md#d9).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::medium;
use super::registry::TrackedVolume;
use super::volumes::{Volumes, blocking};
use super::writer::Written;
use crate::model::{FileName, Payload, SecretBytes};

/// How long a refresh waits for another write of the same target.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long reading may wait for a thread.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Refreshed {
    /// The volume already held the payload.
    Unchanged,
    /// The payload was written.
    Changed,
    /// The volume no longer exists; nothing was written.
    Gone,
}

impl Volumes {
    /// Makes a published volume hold exactly `payload`.
    ///
    /// # Errors
    /// The error of the kernel; readers see the old content then.
    pub(in crate::node) async fn refresh(
        &self,
        volume: &TrackedVolume,
        payload: Arc<Payload>,
    ) -> Result<Refreshed, Error> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let writing = self.lock(&volume.target, &volume.lock, deadline).await?;
        // An unpublish changes the epoch before it waits for the lock.
        if volume.lock.epoch() != volume.epoch {
            return Ok(Refreshed::Gone);
        }
        let (site, group) = (self.site(&volume.target), volume.group);
        blocking(&volume.target, deadline, move || {
            let _held = writing;
            Ok(match medium::refill(&site, &payload, group)? {
                None => Refreshed::Gone,
                Some(Written::Unchanged) => Refreshed::Unchanged,
                Some(Written::Changed) => Refreshed::Changed,
            })
        })
        .await
    }
}

impl TrackedVolume {
    /// Reads files back; `None` if that is not possible, for whatever reason.
    pub(in crate::node) async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>> {
        // An unpublish changes the epoch before it clears the target, where another volume may be published next.
        if self.lock.epoch() != self.epoch {
            return None;
        }
        let (target, deadline) = (self.target.clone(), Instant::now() + READ_TIMEOUT);
        blocking(&self.target, deadline, move || medium::read(&target, &names)).await.ok().flatten()
    }
}
