//! Connects the node driver to a cluster: classes, reports, and the mirror.
//!
//! Without a cluster, classes come from a directory of manifests, and there are no reports. Starts
//! the watches in the background and waits for no request.

use anyhow::Context as _;
use tracing::warn;

use super::args::Args;
use crate::classes::{Classes, Directory};
use crate::compute::Compute;
use crate::kubernetes::{self, ClassCache, Connection, Credentials, Pods, Reports, Secrets, Statuses};
use crate::node::mirror;
use crate::node::volume::Volumes;
use crate::server::metrics::NodeMetrics;

/// The parts that exist only with a cluster.
pub(super) struct Cluster {
    pub(super) connection: Connection,
    pub(super) classes: ClassCache,
    pub(super) reports: Reports,
    pub(super) pods: Pods,
}

/// The source of classes; and the cluster, unless there is a directory of manifests.
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

/// Starts the mirror, which runs until the process ends; the next process completes its work.
pub(super) fn mirror_secrets(
    args: &Args,
    cluster: Option<Cluster>,
    volumes: &Volumes,
    metrics: &NodeMetrics,
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
        secrets: Secrets::new(connection, mirror::MANAGER),
        changes: volumes.changes().clone(),
        reports,
        metrics: metrics.clone(),
        compute,
        driver: args.drivername.clone(),
        interval: args.secret_check_interval,
    };
    // The mirror subscribes before the watch starts.
    tokio::spawn(mirror::run(sources));
    tokio::spawn(statuses.follow());
}
