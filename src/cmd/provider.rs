//! The role `provider`, for another driver: flags, wiring, order of start and shutdown.
//!
//! Has the node driver's Azure provider, without volumes and without a cluster. Uses no network
//! before the first Mount. On SIGTERM or SIGINT it removes its socket, accepts no new calls, and
//! waits for the open ones.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueHint};
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::azure::AzureArgs;
use super::descriptors::Descriptors;
use super::goflags::Unused;
use super::process::{self, Build, ProcessArgs, Running, parse_endpoint};
use crate::compute::Compute;
use crate::formats::duration;
use crate::node::plugin::{self, ProviderService};
use crate::platform::socket;
use crate::server::admin;
use crate::server::metrics::{Exposition, FetchMetrics, ProviderMetrics};

/// The limit of `--healthz-timeout`; a kubelet's timeout for a probe is far below.
const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(300);

/// Flags of `keyvault-csi provider`, with upstream's names and defaults
/// (docs/reference/azure-provider.md#flags).
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Socket of the provider: unix://PATH; drivers look for azure.sock.
    #[arg(long, default_value = "unix:///tmp/azure.sock", value_hint = ValueHint::Url, value_parser = parse_endpoint)]
    endpoint: PathBuf,
    /// Port for the health check; 0 for none.
    #[arg(long, default_value_t = 8989)]
    healthz_port: u16,
    /// IP address for the health check, such as 127.0.0.1; if empty, all addresses.
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true, value_parser = parse_ip)]
    healthz_addr: Ip,
    /// Path of the health check.
    #[arg(long, default_value = "/healthz", value_parser = parse_path)]
    healthz_path: String,
    /// Timeout of the health check's call to the provider's own socket.
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = parse_timeout)]
    healthz_timeout: Duration,
    /// Port for /metrics, on all addresses; 0 for none.
    #[arg(long, default_value_t = 8898)]
    prometheus_port: u16,
    #[command(flatten)]
    azure: AzureArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

// An alias, since clap reads a field written as Option as an optional flag.
type Ip = Option<IpAddr>;

/// Runs the provider until the shutdown signal.
///
/// # Errors
/// It cannot start, or fails later.
pub(super) fn run(args: Args, unused: &[Unused]) -> anyhow::Result<()> {
    let process = args.process.clone();
    let version = |build: Build| {
        // Upstream's keys, and the commit (docs/reference/azure-provider.md#flags).
        serde_json::json!({ "version": build.version, "gitCommit": build.commit, "buildDate": build.date })
    };
    process::run(&process, unused, version, |descriptors| serve(args, descriptors))
}

async fn serve(args: Args, descriptors: Descriptors) -> anyhow::Result<()> {
    let (signal, shutdown) = (process::shutdown_signal()?, CancellationToken::new());
    let (mut exposition, tasks) = (Exposition::new(), TaskTracker::new());
    let fetch_metrics = FetchMetrics::register(&mut exposition);
    let azure = args.azure.provider(&fetch_metrics, &Compute::new(fetch_metrics.clone())?, descriptors)?;
    let metrics = ProviderMetrics::register(&mut exposition);
    let provider = ProviderService { azure, metrics, tasks: tasks.clone() };
    let mut running = Running::new();
    serve_http(&mut running, &args, Arc::new(exposition), descriptors, &shutdown).await?;
    let (listener, socket_file) = socket::listen_private(&args.endpoint)?;
    running.spawn(plugin::serve(listener, provider, descriptors.calls, shutdown.clone().cancelled_owned()));
    info!(endpoint = %args.endpoint.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    let outcome = process::until_shutdown(&signal, &mut running).await;
    // Before the listener closes: from then on the file may be the socket of the next process.
    socket_file.remove();
    shutdown.cancel();
    process::drain(running, &tasks).await;
    outcome
}

/// Serves metrics and health, unless the flags disable them.
async fn serve_http(
    running: &mut Running,
    args: &Args,
    metrics: Arc<Exposition>,
    descriptors: Descriptors,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    if args.prometheus_port != 0 {
        let address = admin::everywhere(args.prometheus_port);
        let room = descriptors.metrics;
        let served = process::serve_metrics(running, address, "--prometheus-port", metrics, room, shutdown).await;
        // A port in use by another program on this node must not keep pods from their secrets
        // (docs/reference/azure-provider.md#start-up).
        if let Err(error) = served {
            warn!(err = %error, "metrics are not served");
        }
    }
    if args.healthz_port != 0 {
        let everywhere = admin::everywhere(args.healthz_port);
        let address = args.healthz_addr.map_or(everywhere, |ip| SocketAddr::new(ip, args.healthz_port));
        let listener = admin::bind(address, "--healthz-addr and --healthz-port").await?;
        let (socket, timeout) = (args.endpoint.clone(), args.healthz_timeout);
        let live = Box::new(move || {
            let socket = socket.clone();
            async move { plugin::probe(&socket, timeout).await }.boxed()
        });
        let (path, shutdown) = (args.healthz_path.clone(), shutdown.clone().cancelled_owned());
        running.spawn(async move {
            admin::serve_health_at(listener, path, live, descriptors.health, shutdown).await;
            Ok(())
        });
    }
    Ok(())
}

fn parse_path(text: &str) -> Result<String, String> {
    match text.starts_with('/') && !text.contains(['?', '#']) {
        true => Ok(text.to_owned()),
        false => Err("must be the path of a URL, such as /healthz".to_owned()),
    }
}

fn parse_ip(text: &str) -> Result<Ip, String> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "must be an IP address such as 127.0.0.1, without a port".to_owned()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text).map_err(|error| error.to_string())?;
    match timeout.is_zero() || timeout > MAX_PROBE_TIMEOUT {
        true => Err(format!("must be above 0 and at most {MAX_PROBE_TIMEOUT:?}")),
        false => Ok(timeout),
    }
}
