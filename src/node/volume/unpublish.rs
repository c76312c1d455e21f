//! Unpublishing a volume: idempotent removal of content, mount and directory.
//!
//! Waits for a write of the same target that is in progress, and cancels publishes that still
//! fetch. `tmpfs` removes what is on the target.

use tokio::time::Instant;
use tracing::warn;

use super::error::Error;
use super::target::TargetPath;
use super::tmpfs::{self, Cleared};
use super::volumes::{Volumes, blocking};

impl Volumes {
    /// Removes the volume. Succeeds if the target does not exist or is not below the root.
    ///
    /// # Errors
    /// [`Error::Busy`] if a write does not end before the deadline, and errors of the kernel.
    pub async fn unpublish(&self, path: TargetPath, deadline: Instant) -> Result<(), Error> {
        let target = self.locks.get(&path);
        // Before the lock: a publish that gets the lock next must notice the unpublish.
        target.record_unpublish();
        if let Some(registry) = &self.registry {
            registry.remove(&path);
        }
        if let Some(reports) = &self.reports {
            reports.unpublished(&path.to_string());
        }
        let guard = self.lock(&path, &target, deadline).await?;
        let mount_point = self.mount_point(&path);
        let cleared = blocking(&path, deadline, move || {
            let _guard = guard;
            tmpfs::clear(&mount_point)
        });
        match cleared.await? {
            Cleared::Removed => {}
            Cleared::Unmounted => {
                warn!(target = %path, "the target is not below --kubelet-root: its tmpfs was unmounted, nothing else was changed")
            }
            Cleared::Untouched => warn!(target = %path, "the target is not below --kubelet-root: nothing was changed"),
        }
        Ok(())
    }
}
