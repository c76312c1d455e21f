//! The node driver: flags, wiring, order of start and stop.
//!
//! Nothing here needs the network before the kubelet has been answered. Stops on SIGTERM or SIGINT: takes no new calls,
//! lets the open ones end, and leaves every mount as it is.

mod args;
mod cluster;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub(super) use self::args::Args;
use self::args::AzureProvider;
use super::goflags::Unused;
use crate::admin::{self, Health};
use crate::csi::{self, Driver, Node, probe, registration};
use crate::external::{self, External};
use crate::k8s;
use crate::keyvault::{Options, Rate, TokenProxyOptions, Vaults};
use crate::metrics::Metrics;
use crate::model::FileMode;
use crate::platform::{process, socket};
use crate::provider::{Azure, DefaultCloud, Rendering};
use crate::telemetry;
use crate::volume::{RotationOptions, Sources, Volumes};

/// Enough to keep two cores busy; the node's core count would only cost memory (design §8).
const WORKERS: usize = 2;
/// Threads for mounting, writing and looking up names, made when needed; names get a part of them only.
const BLOCKING: usize = 32;
/// An idle one of those goes after this time.
const BLOCKING_IDLE: Duration = Duration::from_secs(10);
/// How many requests may go to one vault at once after a rest (design decision 7).
const BURST: u32 = 64;
/// How long open calls may take to end after SIGTERM; below Kubernetes' default grace period of 30 s.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the last answers may take to go out after that.
const FLUSH: Duration = Duration::from_secs(1);
/// How long statuses that are not written yet may take after that.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the own socket may take to answer before the driver is offered to the kubelet.
const STARTUP: Duration = Duration::from_secs(10);

/// Runs the node driver until it is told to stop.
///
/// # Errors
/// What kept it from starting, or broke while it ran.
pub(super) fn run(args: Args, unused: &[Unused]) -> anyhow::Result<()> {
    if args.version {
        return Ok(writeln!(std::io::stdout(), "{}", version())?);
    }
    process::forbid_core_files().context("cannot forbid core files")?;
    let format = if args.log_format_json { telemetry::Format::Json } else { telemetry::Format::Text };
    telemetry::start(format, args.v)?;
    for Unused { name, why, .. } in unused {
        warn!(flag = name, why, "a flag without effect");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(BLOCKING_IDLE)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(drive(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// What `--version` says, under upstream's keys (spec/driver.md §7). Commit and date are the builder's to give.
fn version() -> serde_json::Value {
    serde_json::json!({
        "BuildVersion": env!("CARGO_PKG_VERSION"),
        "GitCommit": option_env!("KEYVAULT_CSI_COMMIT").unwrap_or("unknown"),
        "BuildDate": option_env!("KEYVAULT_CSI_DATE").unwrap_or("unknown"),
    })
}

async fn drive(args: Args) -> anyhow::Result<()> {
    let (told, stop) = (told_by_signal()?, CancellationToken::new());
    let user_agent = format!("keyvault-csi/{}", env!("CARGO_PKG_VERSION"));
    let (classes, cluster) = cluster::connect(&args, &user_agent).await?;
    let reports = cluster.as_ref().map(|cluster| cluster.reports.clone());
    let metrics = Metrics::new();
    let external = external(&args, &metrics);
    let sources = Sources::new(azure(&args, user_agent, &metrics)?, external.clone());
    let tasks = TaskTracker::new();
    let rotation = RotationOptions { interval: args.rotation_poll_interval, republish: args.republish_period };
    let rotation = args.enable_secret_rotation.then_some(rotation);
    let volumes = Volumes::new(classes, sources, metrics.clone()).reporting_to(reports.clone()).rotating(rotation);
    let pods = cluster.as_ref().map(|cluster| cluster.pods.clone());
    let connection = cluster.as_ref().map(|cluster| cluster.connection.clone());
    if args.provider_health_check {
        tokio::spawn(external.watch_health(args.provider_health_check_interval));
    }
    if args.sync_secret {
        cluster::mirror_secrets(&args, cluster, &volumes, &metrics);
    }
    if let Some(pods) = pods.clone().filter(|_| args.sync_secret || args.enable_secret_rotation) {
        tokio::spawn(pods.follow());
    }
    let rotating = rotation.map(|_| volumes.clone().rotate(metrics.clone(), pods));
    let node = Node { node_id: args.nodeid.clone(), volumes, metrics: metrics.clone(), tasks: tasks.clone() };
    let driver = Driver { name: args.drivername.clone(), node };
    let (listener, socket_file) = socket::listen_private(&args.endpoint)?;
    let (state, registered) = watch::channel(registration::State::Waiting);

    let mut running = JoinSet::new();
    if let Some(rotating) = rotating {
        let stopped = stop.clone().cancelled_owned();
        running.spawn(async move {
            tokio::select! {
                () = rotating => {}
                () = stopped => {}
            }
            Ok(())
        });
    }
    serve_http(&mut running, &args, metrics, &registered, &stop).await?;
    if let Some(connection) = connection.filter(|_| !args.startup_taint.is_empty()) {
        tokio::spawn(remove_taint(connection, args.nodeid.clone(), args.startup_taint.clone(), registered));
    }
    running.spawn(csi::serve(listener, driver, stop.clone().cancelled_owned()));
    info!(endpoint = %args.endpoint.display(), driver = %args.drivername, version = env!("CARGO_PKG_VERSION"),
        "listening");
    if let (Some(folder), Some(kubelet_path)) = (args.registration_dir, args.kubelet_registration_path) {
        let plugin = registration::Plugin { name: args.drivername, kubelet_path };
        let (socket, stopped) = (args.endpoint.clone(), stop.clone());
        running.spawn(async move {
            // The kubelet asks back the moment it sees the registration, and a 1.20 one asks only once.
            wait_until_served(&socket).await?;
            registration::serve(&folder, plugin, state, stopped.cancelled_owned()).await
        });
    }
    let outcome = tokio::select! {
        () = told.cancelled() => Ok(()),
        Some(ended) = running.join_next() => ended.map_err(anyhow::Error::from).and_then(|served| served),
    };
    // While it still listens: a successor may start as soon as it does not, and its socket is not ours to remove.
    socket_file.remove();
    stop.cancel();
    drain(running, &tasks).await;
    if let Some(reports) = reports {
        reports.settle(SETTLE).await;
    }
    outcome
}

/// The providers beside this program, as the flags want them.
fn external(args: &Args, metrics: &Metrics) -> External {
    let directories = external::directories(&args.additional_provider_volume_paths, &args.provider_volume);
    let largest_reply = usize::try_from(args.max_call_recv_msg_size).unwrap_or(usize::MAX);
    External::new(external::Options { directories, largest_reply }, metrics.clone())
}

/// The built-in provider, as the flags want it.
fn azure(args: &Args, user_agent: String, metrics: &Metrics) -> anyhow::Result<Option<Azure>> {
    if args.azure_provider == AzureProvider::External {
        return Ok(None);
    }
    let cloud = DefaultCloud::new(&args.cloud_name, args.cloud_file.clone())
        .with_context(|| format!("--cloud-name {:?}", args.cloud_name))?;
    let rendering = Rendering {
        construct_pem_chain: args.construct_pem_chain,
        separate_files: args.write_cert_and_key_in_separate_files,
        default_mode: FileMode::DEFAULT,
    };
    let token_proxy = TokenProxyOptions::new(&args.token_proxy_url, &args.sni_name, args.token_proxy_ca_file.clone())?;
    let rate = Rate { per_second: args.vault_requests_per_second, burst: BURST };
    let freshness = args.freshness_window;
    let options = Options { user_agent, token_proxy, freshness, rate, metrics: metrics.clone() };
    Ok(Some(Azure::new(Vaults::new(options)?, cloud, rendering)))
}

/// Serves metrics and health where the flags say so.
async fn serve_http(
    running: &mut JoinSet<anyhow::Result<()>>,
    args: &Args,
    metrics: Metrics,
    registered: &watch::Receiver<registration::State>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(address) = args.metrics_addr {
        let listener = admin::bind(address, "--metrics-addr").await?;
        let stopped = stop.clone().cancelled_owned();
        running.spawn(async move { Ok(admin::serve_metrics(listener, metrics, stopped).await?) });
    }
    if let Some(address) = args.health_addr {
        let listener = admin::bind(address, "--health-addr").await?;
        let health = Health {
            socket: args.endpoint.clone(),
            registration: args.registration_dir.is_some().then(|| registered.clone()),
        };
        let stopped = stop.clone().cancelled_owned();
        running.spawn(async move { Ok(admin::serve_health(listener, health, stopped).await?) });
    }
    Ok(())
}

/// Takes the start-up taint off the node once the kubelet knows the driver.
async fn remove_taint(
    connection: k8s::Connection,
    node: String,
    taint: String,
    mut registered: watch::Receiver<registration::State>,
) {
    if registered.wait_for(|state| *state == registration::State::Registered).await.is_ok() {
        k8s::remove_startup_taint(connection, &node, &taint).await;
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

/// Waits for the open calls to end, and for their answers to go out.
async fn drain(mut running: JoinSet<anyhow::Result<()>>, tasks: &TaskTracker) {
    info!(calls = tasks.len(), "stopping: open calls may end");
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        warn!(calls = tasks.len(), after = ?DRAIN, "calls are still open and are given up; the kubelet makes them again");
    }
    // A connection that says nothing is not waited for.
    let _ = tokio::time::timeout(FLUSH, async { while running.join_next().await.is_some() {} }).await;
}

fn told_by_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = CancellationToken::new();
    let tell = told.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell.cancel();
    });
    Ok(told)
}
