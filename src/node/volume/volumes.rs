//! The volumes of this node: what all their operations share.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::changes::Changes;
use super::error::Error;
use super::locks::{Locks, Target, Writing};
use super::registry::{Registry, RotationOptions};
use super::site::Site;
use super::source::Sources;
use super::target::{KubeletRoot, TargetPath};
use crate::classes::Classes;
use crate::kubernetes::Reports;
use crate::server::metrics::Metrics;

/// The volumes of this node. Cheap to clone; all clones share the locks.
#[derive(Debug, Clone)]
pub struct Volumes {
    pub(in crate::node) classes: Arc<Classes>,
    pub(in crate::node) sources: Sources,
    pub(super) metrics: Metrics,
    pub(super) locks: Arc<Locks>,
    pub(in crate::node) reports: Option<Reports>,
    /// `None` with rotation off.
    pub(in crate::node) rotation: Option<Arc<Registry>>,
    pub(in crate::node) changes: Changes,
    /// `None`: any target is ours.
    pub(super) root: Option<Arc<KubeletRoot>>,
}

impl Volumes {
    /// Volumes whose classes and content come from these.
    pub fn new(classes: Classes, sources: Sources, metrics: Metrics) -> Volumes {
        let (locks, changes) = (Arc::default(), Changes::default());
        let classes = Arc::new(classes);
        Volumes { classes, sources, metrics, locks, reports: None, rotation: None, changes, root: None }
    }

    /// The same volumes, which are below this root of the kubelet and nowhere else.
    pub fn below(self, root: Option<KubeletRoot>) -> Volumes {
        Volumes { root: root.map(Arc::new), ..self }
    }

    /// The same volumes, with a cluster that is told about them.
    pub fn reporting_to(self, reports: Option<Reports>) -> Volumes {
        Volumes { reports, ..self }
    }

    /// The same volumes, registered for rotation if there are options.
    pub fn rotating(self, options: Option<RotationOptions>) -> Volumes {
        Volumes { rotation: options.map(|options| Arc::new(Registry::new(options))), ..self }
    }

    /// Where it is told that a volume was published or its content changed.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn site(&self, target: &TargetPath) -> Site {
        Site::new(target.clone(), self.root.clone())
    }

    pub(super) async fn lock(&self, path: &TargetPath, target: &Target, deadline: Instant) -> Result<Writing, Error> {
        let since = Instant::now();
        let busy = || Error::Busy { target: path.to_string(), waited: since.elapsed() };
        target.lock(deadline).await.ok_or_else(busy)
    }
}

/// Runs what may block on a thread that may; it is carried to its end even when nobody waits any more.
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
