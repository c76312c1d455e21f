//! The node driver's use of the cluster: classes, reports, and the mirror.
//!
//! With a folder of manifests there is no cluster: classes come from the folder, and the driver
//! reports nothing. Starts the watches in the background; nothing here waits for a response of the
//! API server.

use anyhow::Context as _;
use tracing::warn;

use super::args::Args;
use crate::classes::{Classes, Directory};
use crate::compute::Compute;
use crate::kubernetes::{self, ClassCache, Connection, Credentials, Pods, Reports, Secrets, Statuses};
use crate::node::mirror;
use crate::node::volume::Volumes;
use crate::server::metrics::Metrics;

/// The parts of the driver that need a cluster.
pub(super) struct Cluster {
    pub(super) connection: Connection,
    pub(super) classes: ClassCache,
    pub(super) reports: Reports,
    pub(super) pods: Pods,
}

/// The source of classes, and the cluster, unless classes come from a folder of manifests.
pub(super) async fn connect(args: &Args, user_agent: &str) -> anyhow::Result<(Classes, Option<Cluster>)> {
    if let Some(folder) = &args.manifests {
        let classes =
            Classes::Directory(Directory::open(folder).with_context(|| format!("--manifests {}", folder.display()))?);
        return Ok((classes, None));
    }
    let connection = kubernetes::connect(&Credentials::from_flag(args.kubeconfig.as_deref()), user_agent).await?;
    let classes = ClassCache::new(connection.clone());
    tokio::spawn(classes.clone().follow());
    let node = kubernetes::Node { name: args.nodeid.clone(), driver: args.drivername.clone() };
    let reports = Reports::start(connection.clone(), node);
    let pods = Pods::new(connection.clone(), &args.nodeid);
    Ok((Classes::Kubernetes(classes.clone()), Some(Cluster { connection, classes, reports, pods })))
}

/// Starts the mirror, which runs as long as the process; the next process continues unfinished
/// work.
pub(super) fn mirror_secrets(
    args: &Args,
    cluster: Option<Cluster>,
    volumes: &Volumes,
    metrics: &Metrics,
    compute: Compute,
) {
    let Some(Cluster { connection, classes, reports, pods }) = cluster else {
        warn!("--sync-secret has no effect with --manifests: there is no cluster to write Secrets to");
        return;
    };
    let statuses = Statuses::new(connection.clone(), &args.nodeid);
    let sources = mirror::Sources {
        classes,
        pods,
        statuses: statuses.clone(),
        secrets: Secrets::new(connection),
        changes: volumes.changes().clone(),
        reports,
        metrics: metrics.clone(),
        compute,
        driver: args.drivername.clone(),
        interval: args.secret_check_interval,
    };
    // Before the watch of status objects, so that the mirror receives its first notifications.
    tokio::spawn(mirror::run(sources));
    tokio::spawn(statuses.follow());
}
