//! What the roles that serve have in common: log, threads, the signals that stop them, and how they end.
//!
//! Knows no role. Each role starts what it needs, waits with [`until_told`], and ends with [`drain`].

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args as ClapArgs};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::descriptors::Descriptors;
use super::goflags::Unused;
use crate::platform::process::{descriptor_limit, forbid_core_files, raise_descriptor_limit};
use crate::server::admin;
use crate::server::metrics::Metrics;
use crate::server::telemetry;

/// Enough to keep two cores busy; the node's core count would only cost memory
/// (docs/performance.md).
const WORKERS: usize = 2;
/// Threads for mounting, writing and looking up names, made when needed; names get a part of them only.
const BLOCKING: usize = 32;
/// An idle one of those goes after this time.
const BLOCKING_IDLE: Duration = Duration::from_secs(10);
/// How long open calls may take to end after SIGTERM; below Kubernetes' default grace period of 30 s.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the last answers may take to go out after that.
const FLUSH: Duration = Duration::from_secs(1);

/// Flags of every role that serves.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ProcessArgs {
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

/// What `--version` says. Commit and date are the builder's to give.
pub(super) struct Build {
    pub(super) version: &'static str,
    pub(super) commit: &'static str,
    pub(super) date: &'static str,
}

const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: match option_env!("KEYVAULT_CSI_COMMIT") {
        Some(commit) => commit,
        None => "unknown",
    },
    date: match option_env!("KEYVAULT_CSI_DATE") {
        Some(date) => date,
        None => "unknown",
    },
};

/// With fewer descriptors than this the log says so at the start: a fetch of sixteen objects may have to wait for
/// itself.
const FEW_DESCRIPTORS: u64 = 1_024;

/// Runs a role until it ends: `version` writes what `--version` says, under the names that upstream's program of this role has.
/// `serve` gets the shares of the descriptors.
///
/// # Errors
/// What kept it from starting, or broke while it ran.
pub(super) fn run<F: Future<Output = anyhow::Result<()>>>(
    args: &ProcessArgs,
    unused: &[Unused],
    version: impl FnOnce(Build) -> serde_json::Value,
    serve: impl FnOnce(Descriptors) -> F,
) -> anyhow::Result<()> {
    if args.version {
        return Ok(writeln!(std::io::stdout(), "{}", version(BUILD))?);
    }
    forbid_core_files().context("cannot forbid core files")?;
    let format = if args.log_format_json { telemetry::Format::Json } else { telemetry::Format::Text };
    telemetry::start(format, args.v)?;
    for Unused { name, why, .. } in unused {
        warn!(flag = name, why, "a flag without effect");
    }
    let descriptors = share_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(BLOCKING_IDLE)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(descriptors));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Has as many descriptors as the process may have, and shares them out.
fn share_descriptors() -> Descriptors {
    let limit = raise_descriptor_limit().unwrap_or_else(|error| {
        let limit = descriptor_limit();
        warn!(err = %error, limit, "the limit of open files cannot be raised");
        limit
    });
    let shares = Descriptors::of(limit);
    if limit < FEW_DESCRIPTORS {
        warn!(
            limit,
            ?shares,
            "few files may be open at once, so that calls may have to wait or fail: raise the hard limit (LimitNOFILE of the container runtime)"
        );
    }
    shares
}

/// The name that requests of this program bear.
pub(super) fn user_agent() -> String {
    format!("keyvault-csi/{}", BUILD.version)
}

/// Reads `unix://PATH`; like upstream, puts a `/` in front of a relative path
/// (docs/reference/csi-driver.md#endpoint).
pub(super) fn parse_endpoint(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") && !path.is_empty() => path,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("tcp") => {
            return Err("tcp is not served: without authentication it would give secrets to anybody".to_owned());
        }
        _ => return Err("must be unix:// and a path".to_owned()),
    };
    Ok(PathBuf::from(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

fn parse_backend(text: &str) -> Result<String, String> {
    match text.eq_ignore_ascii_case("prometheus") {
        true => Ok(text.to_owned()),
        false => Err("must be Prometheus: there is no other".to_owned()),
    }
}

/// What is served until the role ends; the first that ends ends the role.
pub(super) type Running = JoinSet<anyhow::Result<()>>;

/// Serves metrics on `address`, which `flag` names, to at most `room` clients at once.
///
/// # Errors
/// The address cannot be had.
pub(super) async fn serve_metrics(
    running: &mut Running,
    address: SocketAddr,
    flag: &str,
    metrics: Metrics,
    room: usize,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = admin::bind(address, flag).await?;
    let stopped = stop.clone().cancelled_owned();
    running.spawn(async move {
        admin::serve_metrics(listener, metrics, room, stopped).await;
        Ok(())
    });
    Ok(())
}

/// Waits until the process is told to stop, or something breaks.
///
/// # Errors
/// What broke.
pub(super) async fn until_told(told: &CancellationToken, running: &mut Running) -> anyhow::Result<()> {
    tokio::select! {
        () = told.cancelled() => Ok(()),
        Some(ended) = running.join_next() => ended.map_err(anyhow::Error::from).and_then(|served| served),
    }
}

/// Waits for the open calls to end, and for their answers to go out.
pub(super) async fn drain(mut running: Running, tasks: &TaskTracker) {
    info!(calls = tasks.len(), "stopping: open calls may end");
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        warn!(calls = tasks.len(), after = ?DRAIN, "calls are still open and are given up; the kubelet makes them again");
    }
    // A connection that says nothing is not waited for.
    let _ = tokio::time::timeout(FLUSH, async { while running.join_next().await.is_some() {} }).await;
}

/// Cancelled on the first SIGTERM or SIGINT.
///
/// # Errors
/// The signals cannot be had.
pub(super) fn told_by_signal() -> anyhow::Result<CancellationToken> {
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
