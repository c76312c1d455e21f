//! Unpublishing a volume: idempotent removal of content, mount and directory.
//!
//! Waits for a write of the same target that is under way, and makes publishes that are still fetching end without a
//! mount. What is on the target is taken away by `medium`.

use tokio::time::Instant;
use tracing::warn;

use super::error::Error;
use super::medium::{self, Cleared};
use super::target::TargetPath;
use super::volumes::{Volumes, blocking};

impl Volumes {
    /// Takes the volume on `target` away; a target that is not there is a success, and so is one that is not ours.
    ///
    /// # Errors
    /// [`Error::Busy`] when a write does not end before the deadline, and what the kernel says.
    pub async fn unpublish(&self, path: TargetPath, deadline: Instant) -> Result<(), Error> {
        let target = self.locks.target(&path);
        // Before the wait: a publish that takes the lock after us must see it.
        target.unpublished();
        if let Some(registry) = &self.rotation {
            registry.forget(&path);
        }
        if let Some(reports) = &self.reports {
            reports.unpublished(&path.to_string());
        }
        let writing = self.lock(&path, &target, deadline).await?;
        let site = self.site(&path);
        let cleared = blocking(&path, deadline, move || {
            let _held = writing;
            medium::clear(&site)
        });
        match cleared.await? {
            Cleared::Gone => {}
            Cleared::TakenOff => {
                warn!(target = %path, "the target is not below --kubelet-root: its tmpfs was taken off, and nothing else done")
            }
            Cleared::LeftAlone => warn!(target = %path, "the target is not below --kubelet-root and was not touched"),
        }
        Ok(())
    }
}
