//! Refreshing a published volume: write a payload, if the volume is still the same one.
//!
//! Fetches nothing and reports nothing; `node::rotation` does. Under the target's lock, `tmpfs`
//! proves the mount anew before it writes (docs/decisions.md#d9).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::registry::TrackedVolume;
use super::tmpfs;
use super::volumes::{Volumes, blocking};
use super::writer::Written;
use crate::model::{FileName, Payload, SecretBytes};

/// How long a refresh may wait for another write of the same target and for its own.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a read may wait for a thread.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What a refresh did.
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
    /// Errors of the kernel; readers see the old content then.
    pub(in crate::node) async fn refresh(
        &self,
        volume: &TrackedVolume,
        payload: Arc<Payload>,
    ) -> Result<Refreshed, Error> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let guard = self.lock(&volume.target, &volume.lock, deadline).await?;
        // An unpublish changes the epoch before it waits for the lock.
        if volume.lock.epoch() != volume.epoch {
            return Ok(Refreshed::Gone);
        }
        let (mount_point, group) = (self.mount_point(&volume.target), volume.group);
        blocking(&volume.target, deadline, move || {
            let _guard = guard;
            Ok(match tmpfs::refill(&mount_point, &payload, group)? {
                None => Refreshed::Gone,
                Some(Written::Unchanged) => Refreshed::Unchanged,
                Some(Written::Changed) => Refreshed::Changed,
            })
        })
        .await
    }
}

impl TrackedVolume {
    /// Reads files of the volume; `None` if any of them cannot be read.
    pub(in crate::node) async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>> {
        // An unpublish changes the epoch before it clears the target for another volume.
        if self.lock.epoch() != self.epoch {
            return None;
        }
        let (target, deadline) = (self.target.clone(), Instant::now() + READ_TIMEOUT);
        blocking(&self.target, deadline, move || tmpfs::read(&target, &names)).await.ok().flatten()
    }
}
