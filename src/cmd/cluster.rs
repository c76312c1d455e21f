//! The wiring of the cluster: where classes come from, and what runs beside the volumes where there is an API server.
//!
//! Starts tasks and decides nothing else; without a cluster, classes come from a folder. `node` calls it.

use std::path::Path;
use std::time::Duration;

use crate::classes::{Classes, Directory};
use crate::k8s::{self, ClassCache, Connection, Credentials, Node, Pods, Reports, Secrets, Statuses};
use crate::metrics::Metrics;
use crate::mirror;
use crate::volume::Changes;

/// What there is besides classes where there is a cluster.
pub(super) struct Cluster {
    pub(super) connection: Connection,
    pub(super) reports: Reports,
    pub(super) pods: Pods,
    classes: ClassCache,
    node: Node,
}

/// Where classes come from, and the cluster, unless there is a folder of manifests.
///
/// # Errors
/// A folder that cannot be read, or no usable credentials for the cluster.
pub(super) async fn connect(
    manifests: Option<&Path>,
    kubeconfig: Option<&Path>,
    node: Node,
    user_agent: &str,
) -> anyhow::Result<(Classes, Option<Cluster>)> {
    if let Some(folder) = manifests {
        return Ok((Classes::Directory(Directory::open(folder)?), None));
    }
    let connection = k8s::connect(&Credentials::from_flag(kubeconfig), user_agent).await?;
    let classes = ClassCache::new(connection.clone());
    tokio::spawn(classes.clone().follow());
    let reports = Reports::start(connection.clone(), node.clone());
    let pods = Pods::new(connection.clone(), &node.name);
    Ok((Classes::Kubernetes(classes.clone()), Some(Cluster { connection, reports, pods, classes, node })))
}

impl Cluster {
    /// Starts the mirror, which runs as long as the process; what it does not get done, the next process does.
    ///
    /// Somebody else has the pods followed, since they are not needed for this alone.
    pub(super) fn mirror_secrets(self, changes: &Changes, metrics: &Metrics, interval: Duration) {
        let Cluster { connection, reports, pods, classes, node } = self;
        let statuses = Statuses::new(connection.clone(), &node.name);
        let sources = mirror::Sources {
            classes,
            pods,
            statuses: statuses.clone(),
            secrets: Secrets::new(connection),
            changes: changes.clone(),
            reports,
            metrics: metrics.clone(),
            driver: node.driver,
            interval,
        };
        // The mirror listens before anything is told.
        tokio::spawn(mirror::run(sources));
        tokio::spawn(statuses.follow());
    }
}
