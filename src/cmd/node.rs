//! The role `node`: flags, wiring, order of start and shutdown.
//!
//! Needs no network before it answers the kubelet. On SIGTERM or SIGINT it accepts no new calls,
//! waits for the open ones, and leaves every mount in place.

mod args;
mod cluster;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub(super) use self::args::Args;
use self::args::AzureProvider;
use super::descriptors::Descriptors;
use super::goflags::Unused;
use super::process::{self, Build, Running};
use crate::backend::Backends;
use crate::backend::external::{self, External};
use crate::compute::Compute;
use crate::kubernetes::{self, Reports};
use crate::model::ResourceName;
use crate::node::csi::{self, Driver, Node, probe, registration};
use crate::node::rotation::Rotation;
use crate::node::volume::{RotationOptions, Volumes};
use crate::platform::socket;
use crate::server::admin::{self, Checked};
use crate::server::metrics::{Exposition, FetchMetrics, NodeMetrics};

/// For unwritten status objects, after the open calls.
const SETTLE: Duration = Duration::from_secs(2);
/// For the driver's own socket to answer, before the driver registers with the kubelet.
const STARTUP: Duration = Duration::from_secs(10);

/// Runs the node driver until the shutdown signal.
///
/// # Errors
/// It cannot start, or fails later.
pub(super) fn run(args: Args, unused: &[Unused]) -> anyhow::Result<()> {
    let process = args.process.clone();
    let version = |build: Build| {
        // Upstream's keys (docs/reference/csi-driver.md#flags).
        serde_json::json!({ "BuildVersion": build.version, "GitCommit": build.commit, "BuildDate": build.date })
    };
    process::run(&process, unused, version, |descriptors| drive(args, descriptors))
}

/// The parts of the role, wired and not serving yet.
struct Parts {
    driver: Driver,
    exposition: Exposition,
    rotation: Option<Rotation>,
    reports: Option<Reports>,
    connection: Option<kubernetes::Connection>,
    tasks: TaskTracker,
}

/// Wires the role, and starts the tasks that follow the cluster.
async fn build(args: &Args, descriptors: Descriptors) -> anyhow::Result<Parts> {
    let (classes, cluster) = cluster::connect(args, &process::user_agent()).await?;
    let reports = cluster.as_ref().map(|cluster| cluster.reports.clone());
    let mut exposition = Exposition::new();
    let metrics = NodeMetrics::register(&mut exposition);
    let fetch_metrics = FetchMetrics::register(&mut exposition);
    let compute = Compute::new(fetch_metrics.clone())?;
    let external = external(args, &metrics);
    let azure = match args.azure_provider {
        AzureProvider::Builtin => Some(args.azure.provider(&fetch_metrics, &compute, descriptors)?),
        AzureProvider::External => None,
    };
    let backends = Backends::new(azure, external.clone());
    let rotation = RotationOptions { interval: args.rotation_poll_interval, republish: args.republish_period };
    let rotation = args.enable_secret_rotation.then_some(rotation);
    let volumes = Volumes::new(classes, backends, metrics.clone()).below(args.kubelet_root.clone());
    let volumes = volumes.reporting_to(reports.clone()).rotating(rotation);
    let pods = cluster.as_ref().map(|cluster| cluster.pods.clone());
    let connection = cluster.as_ref().map(|cluster| cluster.connection.clone());
    if args.provider_health_check {
        tokio::spawn(external.watch_health(args.provider_health_check_interval));
    }
    if args.sync_secret {
        cluster::mirror_secrets(args, cluster, &volumes, &metrics, compute);
    }
    if let Some(pods) = pods.clone().filter(|_| args.sync_secret || args.enable_secret_rotation) {
        tokio::spawn(pods.follow());
    }
    let rotation = Rotation::new(volumes.clone(), metrics.clone(), pods);
    let tasks = TaskTracker::new();
    let node = Node { node_id: args.nodeid.clone(), volumes, metrics, tasks: tasks.clone() };
    let driver = Driver { name: args.drivername.clone(), node };
    Ok(Parts { driver, exposition, rotation, reports, connection, tasks })
}

async fn drive(args: Args, descriptors: Descriptors) -> anyhow::Result<()> {
    let (signal, shutdown) = (process::shutdown_signal()?, CancellationToken::new());
    let Parts { driver, exposition, rotation, reports, connection, tasks } = build(&args, descriptors).await?;
    let (listener, socket_file) = socket::listen_private(&args.endpoint)?;
    let (state, registered) = watch::channel(registration::State::Waiting);
    let mut running = Running::new();
    if let Some(rotation) = rotation {
        let stopped = shutdown.clone().cancelled_owned();
        running.spawn(async move {
            tokio::select! {
                () = rotation.run() => {}
                () = stopped => {}
            }
            Ok(())
        });
    }
    serve_http(&mut running, &args, Arc::new(exposition), &registered, descriptors, &shutdown).await?;
    if let Some(connection) = connection.filter(|_| !args.startup_taint.is_empty()) {
        // The node's name becomes part of a URL.
        let node = ResourceName::new(args.nodeid.as_str()).context("--nodeid")?;
        tokio::spawn(remove_taint(connection, node, args.startup_taint.clone(), registered));
    }
    running.spawn(csi::serve(listener, driver, descriptors.calls, shutdown.clone().cancelled_owned()));
    info!(endpoint = %args.endpoint.display(), driver = %args.drivername, version = env!("CARGO_PKG_VERSION"),
        "listening");
    register(&mut running, args, state, &shutdown);
    let outcome = process::until_shutdown(&signal, &mut running).await;
    // Before the listener closes: from then on the file may be the socket of the next process.
    socket_file.remove();
    shutdown.cancel();
    process::drain(running, &tasks).await;
    if let Some(reports) = reports {
        reports.settle(SETTLE).await;
    }
    outcome
}

/// Offers the driver to the kubelet, if the flags say where.
fn register(
    running: &mut Running,
    args: Args,
    state: watch::Sender<registration::State>,
    shutdown: &CancellationToken,
) {
    let (Some(folder), Some(kubelet_path)) = (args.registration_dir, args.kubelet_registration_path) else { return };
    let plugin = registration::Plugin { name: args.drivername, kubelet_path };
    let (socket, shutdown) = (args.endpoint, shutdown.clone());
    running.spawn(async move {
        // The kubelet calls the driver as soon as it finds the registration socket, and may never
        // repeat a registration that failed (docs/reference/kubelet.md#registration).
        wait_until_served(&socket).await?;
        registration::serve(&folder, plugin, state, shutdown.cancelled_owned()).await
    });
}

/// The configured external providers.
fn external(args: &Args, metrics: &NodeMetrics) -> External {
    let directories = external::directories(&args.additional_provider_volume_paths, &args.provider_volume);
    let largest_reply = usize::try_from(args.max_call_recv_msg_size).unwrap_or(usize::MAX);
    External::new(external::Options { directories, largest_reply }, metrics.clone())
}

/// Serves metrics and health, unless the flags disable them.
async fn serve_http(
    running: &mut Running,
    args: &Args,
    metrics: Arc<Exposition>,
    registered: &watch::Receiver<registration::State>,
    descriptors: Descriptors,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(address) = args.metrics_addr {
        process::serve_metrics(running, address, "--metrics-addr", metrics, descriptors.metrics, shutdown).await?;
    }
    if let Some(address) = args.health_addr {
        let listener = admin::bind(address, "--health-addr").await?;
        let socket = args.endpoint.clone();
        let live = Box::new(move || {
            let socket = socket.clone();
            async move { probe::probe(&socket).await }.boxed()
        });
        let registration = args.registration_dir.is_some().then(|| registered.clone());
        let ready = Box::new(move || registration.as_ref().map_or(Ok(()), |state| is_registered(&state.borrow())));
        let shutdown = shutdown.clone().cancelled_owned();
        running.spawn(async move {
            admin::serve_health(listener, live, ready, descriptors.health, shutdown).await;
            Ok(())
        });
    }
    Ok(())
}

fn is_registered(state: &registration::State) -> Checked {
    match state {
        registration::State::Registered => Ok(()),
        registration::State::Waiting => Err("the kubelet has not registered the driver yet".to_owned()),
        registration::State::Failed(error) => Err(format!("the kubelet refuses the registration: {error}")),
    }
}

/// Removes the start-up taint from the node once the driver is registered with the kubelet.
async fn remove_taint(
    connection: kubernetes::Connection,
    node: ResourceName,
    taint: String,
    mut registered: watch::Receiver<registration::State>,
) {
    if registered.wait_for(|state| *state == registration::State::Registered).await.is_ok() {
        kubernetes::remove_startup_taint(connection, &node, &taint).await;
    }
}

async fn wait_until_served(endpoint: &std::path::Path) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + STARTUP;
    loop {
        match probe::probe(endpoint).await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= deadline => anyhow::bail!(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
