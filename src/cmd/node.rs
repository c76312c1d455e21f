//! The node driver: flags, wiring, order of start and stop.
//!
//! Nothing here needs the network before the kubelet has been answered. Stops on SIGTERM or SIGINT: takes no new calls,
//! lets the open ones end, and leaves every mount as it is.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args as ClapArgs};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::cluster;
use super::goflags::Unused;
use crate::admin::{self, Health};
use crate::csi::{self, Driver, Node, probe, registration};
use crate::formats::duration;
use crate::k8s;
use crate::keyvault::{Options, Rate, TokenProxyOptions, Vaults};
use crate::metrics::Metrics;
use crate::model::FileMode;
use crate::platform::{process, socket};
use crate::provider::{Azure, CLOUD_FILE_VARIABLE, DefaultCloud, Rendering};
use crate::telemetry;
use crate::volume::{RotationOptions, Volumes};

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
/// The shortest interval of anything that is done over and over again.
const SHORTEST: Duration = Duration::from_millis(10);
/// The shortest pause between two looks at a Secret that is as it should be: each is a request.
const SHORTEST_CHECK: Duration = Duration::from_secs(1);
/// How long the own socket may take to answer before the driver is offered to the kubelet.
const STARTUP: Duration = Duration::from_secs(10);

/// Flags of `keyvault-csi node`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// CSI endpoint: unix://PATH.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix://tmp/csi.sock", value_parser = parse_endpoint)]
    endpoint: PathBuf,
    /// Name of the driver, as in the CSIDriver object.
    #[arg(long, default_value = "secrets-store.csi.k8s.io", value_parser = parse_driver_name)]
    drivername: String,
    /// Name of the node.
    #[arg(long, env = "KUBE_NODE_NAME", default_value = "")]
    nodeid: String,
    /// The kubelet's plugins_registry folder; without it the driver does not register itself.
    #[arg(long, value_name = "DIR", requires = "kubelet_registration_path")]
    registration_dir: Option<PathBuf>,
    /// Path of the CSI socket on the host, as the kubelet sees it.
    #[arg(long, value_name = "PATH", requires = "registration_dir")]
    kubelet_registration_path: Option<PathBuf>,
    /// Take SecretProviderClasses from the YAML manifests in this folder instead of the Kubernetes API.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Kubeconfig file for the Kubernetes API; without it the files of KUBECONFIG, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Cloud of classes that name none.
    #[arg(long, default_value = "AzurePublicCloud")]
    cloud_name: String,
    /// File with the addresses of AzureStackCloud, for classes that name none.
    #[arg(long, env = CLOUD_FILE_VARIABLE, value_name = "FILE")]
    cloud_file: Option<PathBuf>,
    /// Address of the AKS token proxy for identity bindings; the cluster's API server if empty.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    token_proxy_url: String,
    /// Name that the AKS token proxy is asked for and checked against; found out from the API server's certificate if empty.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    sni_name: String,
    /// CA certificate of the cluster, for the AKS token proxy.
    #[arg(long, value_name = "FILE", default_value = TokenProxyOptions::CA_FILE)]
    token_proxy_ca_file: PathBuf,
    /// For how long an object that one pod got is given to other pods of the same identity; 0 shares nothing.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration::parse)]
    freshness_window: Duration,
    /// How many requests a second this node sends to one vault at most; 0 is no limit.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    vault_requests_per_second: u32,
    /// Bring the volumes of running pods up to date; the CSIDriver object must have requiresRepublish: true.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    enable_secret_rotation: bool,
    /// How often volumes are brought up to date, unless their class says otherwise.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = parse_interval)]
    rotation_poll_interval: Duration,
    /// How long the kubelet takes at most until it calls again for a volume: its syncFrequency and half as much. Credentials
    /// that it does not renew for three times as long are dropped.
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = parse_interval)]
    republish_period: Duration,
    /// Sort the certificates of a PKCS#12 secret, the server's first.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    construct_pem_chain: bool,
    /// Also write the certificate and the key of a certificate's secret to files of their own, .crt and .key.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    write_cert_and_key_in_separate_files: bool,
    /// Write the Kubernetes Secrets that classes ask for in secretObjects; needs the Kubernetes API.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    sync_secret: bool,
    /// How often Secrets that are as they should be are looked at, so that one that was deleted or changed by hand comes back.
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = parse_check_interval)]
    secret_check_interval: Duration,
    /// Take this taint off the node once the kubelet knows the driver; nothing if empty.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    startup_taint: String,
    /// Address for /metrics; 0 for none, and :8080 if empty.
    #[arg(long, default_value = ":8095", value_parser = parse_metrics_address)]
    metrics_addr: Address,
    /// Address for /healthz and /readyz; 0 for none.
    #[arg(long, default_value = ":9808", value_parser = admin::parse_address)]
    health_addr: Address,
    /// Log as JSON objects instead of text lines.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    log_format_json: bool,
    /// Where metrics go: Prometheus is the only choice.
    #[arg(long, default_value = "Prometheus", value_parser = parse_backend)]
    metrics_backend: String,
    /// Print version, commit and date of the build as JSON, and end.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    version: bool,
    /// Verbosity of the log: 0 to 10.
    #[arg(short, long, default_value_t = 0)]
    v: u8,
}

// An alias, since clap reads a field written as Option as an optional flag.
type Address = Option<SocketAddr>;

/// Reads `unix://PATH`; like upstream, puts a `/` in front of a relative path (spec/driver.md §2.1).
fn parse_endpoint(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") && !path.is_empty() => path,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("tcp") => {
            return Err("tcp is not served: without authentication it would give secrets to anybody".to_owned());
        }
        _ => return Err("must be unix:// and a path".to_owned()),
    };
    Ok(PathBuf::from(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

/// Reads a duration that is waited for over and over again.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(interval) if interval >= SHORTEST => Ok(interval),
        Ok(_) => Err(format!("must be {SHORTEST:?} at least")),
        Err(error) => Err(error.to_string()),
    }
}

/// Nothing means what it means to upstream's metrics library (spec/driver.md §7).
fn parse_metrics_address(text: &str) -> Result<Address, String> {
    admin::parse_address(if text.is_empty() { ":8080" } else { text })
}

fn parse_backend(text: &str) -> Result<String, String> {
    match text.eq_ignore_ascii_case("prometheus") {
        true => Ok(text.to_owned()),
        false => Err("must be Prometheus: there is no other".to_owned()),
    }
}

fn parse_driver_name(text: &str) -> Result<String, String> {
    // The CSI specification's rule for plugin names; the name becomes part of a socket's path.
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if text.len() <= 63 && bytes.iter().copied().all(good) && ends(bytes.first()) && ends(bytes.last()) {
        Ok(text.to_owned())
    } else {
        Err("must be a domain-like name of at most 63 letters, digits, '.' and '-'".to_owned())
    }
}

fn parse_check_interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < SHORTEST_CHECK { Err(format!("must be at least {SHORTEST_CHECK:?}")) } else { Ok(interval) }
}

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
    let node = k8s::Node { name: args.nodeid.clone(), driver: args.drivername.clone() };
    let (classes, cluster) =
        cluster::connect(args.manifests.as_deref(), args.kubeconfig.as_deref(), node, &user_agent).await?;
    let reports = cluster.as_ref().map(|cluster| cluster.reports.clone());
    let cloud = DefaultCloud::new(&args.cloud_name, args.cloud_file.clone())
        .with_context(|| format!("--cloud-name {:?}", args.cloud_name))?;
    let rendering = Rendering {
        construct_pem_chain: args.construct_pem_chain,
        separate_files: args.write_cert_and_key_in_separate_files,
        default_mode: FileMode::DEFAULT,
    };
    let token_proxy = TokenProxyOptions::new(&args.token_proxy_url, &args.sni_name, args.token_proxy_ca_file.clone())?;
    let metrics = Metrics::new();
    let rate = Rate { per_second: args.vault_requests_per_second, burst: BURST };
    let freshness = args.freshness_window;
    let options = Options { user_agent, token_proxy, freshness, rate, metrics: metrics.clone() };
    let azure = Azure::new(Vaults::new(options)?, cloud, rendering);
    let tasks = TaskTracker::new();
    let rotation = RotationOptions { interval: args.rotation_poll_interval, republish: args.republish_period };
    let rotation = args.enable_secret_rotation.then_some(rotation);
    let volumes = Volumes::new(classes, azure).reporting_to(reports.clone()).rotating(rotation);
    let pods = cluster.as_ref().map(|cluster| cluster.pods.clone());
    let connection = cluster.as_ref().map(|cluster| cluster.connection.clone());
    match cluster {
        Some(cluster) if args.sync_secret => {
            cluster.mirror_secrets(volumes.changes(), &metrics, args.secret_check_interval);
        }
        None if args.sync_secret => {
            warn!("--sync-secret has no effect with --manifests: there is no cluster to write Secrets to");
        }
        Some(_) | None => {}
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
    if let Some(connection) = connection.filter(|_| !args.startup_taint.is_empty()) {
        let (node, taint, mut registered) = (args.nodeid, args.startup_taint, registered.clone());
        tokio::spawn(async move {
            if registered.wait_for(|state| *state == registration::State::Registered).await.is_ok() {
                k8s::remove_startup_taint(connection, &node, &taint).await;
            }
        });
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
