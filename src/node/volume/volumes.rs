//! The volumes of this node: the parts that all operations share.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::changes::Changes;
use super::error::Error;
use super::locks::{Locks, TargetLock, WriteGuard};
use super::mount_point::MountPoint;
use super::registry::{Registry, RotationOptions};
use super::target::{KubeletRoot, TargetPath};
use crate::backend::Backends;
use crate::classes::Classes;
use crate::kubernetes::Reports;
use crate::server::metrics::NodeMetrics;

/// The volumes of this node. Cheap to clone; all clones share the locks.
#[derive(Debug, Clone)]
pub struct Volumes {
    pub(in crate::node) classes: Arc<Classes>,
    pub(in crate::node) backends: Backends,
    pub(super) metrics: NodeMetrics,
    pub(super) locks: Arc<Locks>,
    pub(in crate::node) reports: Option<Reports>,
    /// `None` if rotation is off.
    pub(in crate::node) registry: Option<Arc<Registry>>,
    pub(in crate::node) changes: Changes,
    /// `None`: targets may be anywhere.
    pub(super) root: Option<Arc<KubeletRoot>>,
}

impl Volumes {
    /// Volumes without reports, rotation and root.
    pub fn new(classes: Classes, backends: Backends, metrics: NodeMetrics) -> Volumes {
        let (locks, changes) = (Arc::default(), Changes::default());
        let classes = Arc::new(classes);
        Volumes { classes, backends, metrics, locks, reports: None, registry: None, changes, root: None }
    }

    /// Refuses targets that are not below this root.
    pub fn below(self, root: Option<KubeletRoot>) -> Volumes {
        Volumes { root: root.map(Arc::new), ..self }
    }

    /// Reports outcomes to a cluster.
    pub fn reporting_to(self, reports: Option<Reports>) -> Volumes {
        Volumes { reports, ..self }
    }

    /// Registers published volumes for `node::rotation`, if there are options.
    pub fn rotating(self, options: Option<RotationOptions>) -> Volumes {
        Volumes { registry: options.map(|options| Arc::new(Registry::new(options))), ..self }
    }

    /// Where to subscribe to changes of volumes.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn mount_point(&self, target: &TargetPath) -> MountPoint {
        MountPoint::new(target.clone(), self.root.clone())
    }

    pub(super) async fn lock(
        &self,
        path: &TargetPath,
        target: &TargetLock,
        deadline: Instant,
    ) -> Result<WriteGuard, Error> {
        let since = Instant::now();
        let busy = || Error::Busy { target: path.to_string(), waited: since.elapsed() };
        target.lock(deadline).await.ok_or_else(busy)
    }
}

/// Runs blocking work on a thread of its own, to its end even if the caller stops waiting.
pub(super) async fn blocking<T: Send + 'static>(
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
