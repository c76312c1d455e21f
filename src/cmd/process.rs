//! The process of a role that serves: log, threads, shutdown signal, shutdown.
//!
//! Does not depend on a role. A role starts its servers, waits with [`until_shutdown`], and stops
//! with [`drain`].

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
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
use crate::server::metrics::Exposition;
use crate::server::telemetry;

/// Enough to keep two cores busy; the node's core count would only cost memory
/// (docs/performance.md).
const WORKERS: usize = 2;
/// Threads for mounts, writes and name look-ups, started when needed; look-ups may use only a part
/// of them.
const BLOCKING: usize = 32;
/// After this time an idle one of these threads stops.
const BLOCKING_IDLE: Duration = Duration::from_secs(10);
/// For open calls after the shutdown signal; below Kubernetes' default grace period of 30 s.
const DRAIN: Duration = Duration::from_secs(25);
/// For sending the last responses after that.
const FLUSH: Duration = Duration::from_secs(1);

/// Flags of every role that serves.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ProcessArgs {
    /// Log as JSON objects instead of text lines.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    log_format_json: bool,
    /// Metrics backend; Prometheus is the only one.
    #[arg(long, default_value = "Prometheus", value_parser = parse_backend)]
    metrics_backend: String,
    /// Print version, commit and date of the build as JSON, and exit.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    version: bool,
    /// Verbosity of the log: 0 to 10.
    #[arg(short, long, default_value_t = 0)]
    v: u8,
}

/// For `--version`. The build sets commit and date with environment variables.
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

/// Below this limit the log has a warning: the requests of one fetch of 16 objects may have to wait
/// for each other.
const FEW_DESCRIPTORS: u64 = 1_024;

/// Runs a role until it stops. `version` builds the output of `--version` with the keys of
/// upstream's program for this role.
///
/// # Errors
/// The role cannot start, or fails later.
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
        warn!(flag = name, why, "the flag has no effect");
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

/// Raises the limit of descriptors, and divides it.
fn share_descriptors() -> Descriptors {
    let limit = raise_descriptor_limit().unwrap_or_else(|error| {
        let limit = descriptor_limit();
        warn!(err = %error, limit, "cannot raise the limit of open files");
        limit
    });
    let shares = Descriptors::of(limit);
    if limit < FEW_DESCRIPTORS {
        warn!(
            limit,
            ?shares,
            "the limit of open files is low, so calls may wait or fail: raise the hard limit (LimitNOFILE of the container runtime)"
        );
    }
    shares
}

/// The start of the User-Agent of all requests.
pub(super) fn user_agent() -> String {
    format!("keyvault-csi/{}", BUILD.version)
}

/// Parses `unix://PATH`; prepends `/` to a relative path, as upstream does
/// (docs/reference/csi-driver.md#endpoint).
pub(super) fn parse_endpoint(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix") && !path.is_empty() => path,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("tcp") => {
            return Err(
                "tcp is not served: it has no authentication, so any client could read secrets; use unix:// and a path"
                    .to_owned(),
            );
        }
        _ => return Err("must be unix:// and a path".to_owned()),
    };
    Ok(PathBuf::from(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

fn parse_backend(text: &str) -> Result<String, String> {
    match text.eq_ignore_ascii_case("prometheus") {
        true => Ok(text.to_owned()),
        false => Err("must be Prometheus, the only supported backend".to_owned()),
    }
}

/// The tasks of a role. When one of them returns, the role stops.
pub(super) type Running = JoinSet<anyhow::Result<()>>;

/// Serves metrics on `address`, the value of `flag`, to at most `room` concurrent clients.
///
/// # Errors
/// The address cannot be bound.
pub(super) async fn serve_metrics(
    running: &mut Running,
    address: SocketAddr,
    flag: &str,
    metrics: Arc<Exposition>,
    room: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = admin::bind(address, flag).await?;
    let shutdown = shutdown.clone().cancelled_owned();
    running.spawn(async move {
        admin::serve_metrics(listener, metrics, room, shutdown).await;
        Ok(())
    });
    Ok(())
}

/// Waits for the shutdown signal, or until a task returns.
///
/// # Errors
/// The error of the task.
pub(super) async fn until_shutdown(signal: &CancellationToken, running: &mut Running) -> anyhow::Result<()> {
    tokio::select! {
        () = signal.cancelled() => Ok(()),
        Some(joined) = running.join_next() => joined.map_err(anyhow::Error::from).and_then(|served| served),
    }
}

/// Waits until the open calls complete and their responses are sent.
pub(super) async fn drain(mut running: Running, tasks: &TaskTracker) {
    info!(calls = tasks.len(), "shutting down: waiting for open calls");
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        warn!(calls = tasks.len(), after = ?DRAIN, "giving up open calls; the kubelet repeats them");
    }
    // The timeout is for connections that stay open without a call.
    let _ = tokio::time::timeout(FLUSH, async { while running.join_next().await.is_some() {} }).await;
}

/// A token that is cancelled on the first SIGTERM or SIGINT.
///
/// # Errors
/// The signal handlers cannot be installed.
pub(super) fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signalled = CancellationToken::new();
    let cancel = signalled.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(signalled)
}
