//! A volume's life on this node: published, found published, unpublished.
//!
//! Does not know gRPC or Azure: requests come checked from `csi`, content comes through `backend`.
//! `publish` is the place to start reading.
//!
//! ```text
//!   Unmounted ──publish──▶ Whole ──unpublish──▶ Unmounted
//!       │                    ▲
//!       │ (old kernels)      │ mend            a write that is cut off leaves
//!       ▼                    │                 Unfilled before the change-over,
//!   Unfilled ──publish──▶  Torn                Torn after it
//! ```

mod publish;
mod republish;
mod rotation;
mod unpublish;

mod changes;
mod class;
pub mod layout;
mod locks;
mod medium;
mod site;
mod size;
mod target;
pub mod writer;

mod error;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

pub use changes::{Change, Changes};
pub use error::{ClassNameError, Error, MountFailure};
pub use layout::Group;
pub use publish::{Attempt, PublishRequest, Published};
pub use rotation::Options as RotationOptions;
pub use target::{KubeletRoot, KubeletRootError, TargetPath, TargetPathError};

use crate::backend::Backends;
use crate::classes::Classes;
use crate::kubernetes::Reports;
use crate::server::metrics::Metrics;
use locks::{Locks, Target, Writing};
use rotation::Registry;
use site::Site;

/// The volumes of this node. Cheap to clone; all clones share the locks.
#[derive(Debug, Clone)]
pub struct Volumes {
    classes: Arc<Classes>,
    backends: Backends,
    metrics: Metrics,
    locks: Arc<Locks>,
    reports: Option<Reports>,
    /// `None` with rotation off.
    rotation: Option<Arc<Registry>>,
    changes: Changes,
    /// `None`: any target is ours.
    root: Option<Arc<KubeletRoot>>,
}

impl Volumes {
    /// Volumes whose classes and content come from these.
    pub fn new(classes: Classes, backends: Backends, metrics: Metrics) -> Volumes {
        let (locks, changes) = (Arc::default(), Changes::default());
        let classes = Arc::new(classes);
        Volumes { classes, backends, metrics, locks, reports: None, rotation: None, changes, root: None }
    }

    /// The same volumes, which are below this root of the kubelet and nowhere else.
    pub fn below(self, root: Option<KubeletRoot>) -> Volumes {
        Volumes { root: root.map(Arc::new), ..self }
    }

    /// The same volumes, with a cluster that is told about them.
    pub fn reporting_to(self, reports: Option<Reports>) -> Volumes {
        Volumes { reports, ..self }
    }

    /// The same volumes, which [`rotate`](Volumes::rotate) brings up to date.
    pub fn rotating(self, options: Option<RotationOptions>) -> Volumes {
        Volumes { rotation: options.map(|options| Arc::new(Registry::new(options))), ..self }
    }

    /// Where it is told that a volume was published or its content changed.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    fn site(&self, target: &TargetPath) -> Site {
        Site::new(target.clone(), self.root.clone())
    }

    async fn lock(&self, path: &TargetPath, target: &Target, deadline: Instant) -> Result<Writing, Error> {
        let since = Instant::now();
        let busy = || Error::Busy { target: path.to_string(), waited: since.elapsed() };
        target.lock(deadline).await.ok_or_else(busy)
    }
}

/// Runs what may block on a thread that may; it is carried to its end even when nobody waits any more.
async fn blocking<T: Send + 'static>(
    target: &TargetPath,
    deadline: Instant,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let since = Instant::now();
    match timeout_at(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(Error::TaskLost { target: target.to_string() }),
        Err(_) => Err(Error::Busy { target: target.to_string(), waited: since.elapsed() }),
    }
}
