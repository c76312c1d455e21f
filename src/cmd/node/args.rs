//! The flags of the node driver, and the checks of their values.
//!
//! Flags with upstream's meaning have upstream's names and defaults
//! (docs/reference/csi-driver.md#flags). Each value is checked on its own and without the network.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, ValueHint};

use crate::cmd::azure::AzureArgs;
use crate::cmd::process::{ProcessArgs, parse_endpoint};
use crate::formats::duration;
use crate::node::volume::KubeletRoot;
use crate::server::admin;

/// Prevents busy loops.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// For `--secret-check-interval`: each check is a request to the API server.
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The limit of `--max-call-recv-msg-size`: a volume is in memory while it is fetched, and twice in
/// its tmpfs.
const MAX_REPLY: i64 = 256 << 20;

/// The program that fills volumes of provider azure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum AzureProvider {
    /// This program.
    Builtin,
    /// Another program, through its socket azure.sock.
    External,
}

/// Flags of `keyvault-csi node`.
#[derive(Debug, ClapArgs)]
pub(in crate::cmd) struct Args {
    /// CSI endpoint: unix://PATH.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix://tmp/csi.sock", value_hint = ValueHint::Url, value_parser = parse_endpoint)]
    pub(super) endpoint: PathBuf,
    /// Name of the driver, as in the CSIDriver object.
    #[arg(long, default_value = "secrets-store.csi.k8s.io", value_parser = parse_driver_name)]
    pub(super) drivername: String,
    /// Name of the node.
    #[arg(long, env = "KUBE_NODE_NAME", default_value = "")]
    pub(super) nodeid: String,
    /// The kubelet's plugins_registry folder; without it the driver does not register with the
    /// kubelet.
    #[arg(long, value_name = "DIR", requires = "kubelet_registration_path")]
    pub(super) registration_dir: Option<PathBuf>,
    /// Path of the CSI socket on the host.
    #[arg(long, value_name = "PATH", requires = "registration_dir")]
    pub(super) kubelet_registration_path: Option<PathBuf>,
    /// Root directory of the kubelet (its --root-dir). With it, the driver mounts, clears and
    /// removes directories below it only; without it, any directory that the kubelet names.
    #[arg(long, value_name = "DIR")]
    pub(super) kubelet_root: Option<KubeletRoot>,
    /// Read SecretProviderClasses from the YAML manifests in this folder instead of the Kubernetes
    /// API.
    #[arg(long, value_name = "DIR")]
    pub(super) manifests: Option<PathBuf>,
    /// Kubeconfig file for the Kubernetes API; default: the files in KUBECONFIG, else the pod's
    /// service account.
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Refresh the volumes of running pods; the CSIDriver object must have requiresRepublish: true.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(super) enable_secret_rotation: bool,
    /// How often volumes are refreshed, unless an annotation of their class has another interval.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = parse_interval)]
    pub(super) rotation_poll_interval: Duration,
    /// Longest time between two calls of the kubelet for a volume: 1.5 times its syncFrequency.
    /// Credentials that it does not renew for three times as long are dropped.
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = parse_interval)]
    pub(super) republish_period: Duration,
    /// Program that fills volumes of provider azure.
    #[arg(long, value_enum, default_value_t = AzureProvider::Builtin, value_name = "PROGRAM")]
    pub(super) azure_provider: AzureProvider,
    /// Folder of the sockets of other providers, searched last.
    #[arg(long, value_name = "DIR", default_value = "/var/run/secrets-store-csi-providers")]
    pub(super) provider_volume: PathBuf,
    /// More folders of sockets, comma-separated, searched first.
    #[arg(long, value_name = "DIRS", default_value = "/etc/kubernetes/secrets-store-csi-providers")]
    pub(super) additional_provider_volume_paths: String,
    /// Limit of another provider's reply in bytes; above 4 MiB, it is also the limit of the
    /// provider's volumes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, value_parser = parse_reply_limit)]
    pub(super) max_call_recv_msg_size: u32,
    /// Check regularly whether other providers answer, for the metric provider_healthy.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(super) provider_health_check: bool,
    /// Interval of these checks.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = parse_interval)]
    pub(super) provider_health_check_interval: Duration,
    #[command(flatten)]
    pub(super) azure: AzureArgs,
    /// Remove this taint from the node once the driver is registered with the kubelet; if empty, no
    /// taint.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(super) startup_taint: String,
    /// Write the Kubernetes Secrets in secretObjects of classes; needs the Kubernetes API.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(super) sync_secret: bool,
    /// How often unchanged Secrets are checked, to restore those that were deleted or changed by
    /// hand.
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = parse_check_interval)]
    pub(super) secret_check_interval: Duration,
    /// Address for /metrics; 0 for none; if empty, :8080.
    #[arg(long, default_value = ":8095", value_parser = parse_metrics_address)]
    pub(super) metrics_addr: Address,
    /// Address for /healthz and /readyz; 0 for none.
    #[arg(long, default_value = ":9808", value_parser = admin::parse_address)]
    pub(super) health_addr: Address,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
}

// An alias, since clap reads a field written as Option as an optional flag.
type Address = Option<SocketAddr>;

fn parse_interval(text: &str) -> Result<Duration, String> {
    at_least(MIN_INTERVAL, text)
}

fn parse_check_interval(text: &str) -> Result<Duration, String> {
    at_least(MIN_CHECK_INTERVAL, text)
}

fn at_least(shortest: Duration, text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < shortest { Err(format!("must be at least {shortest:?}")) } else { Ok(interval) }
}

/// An empty address has the meaning that upstream's metrics library gives it
/// (docs/reference/csi-driver.md#flags).
fn parse_metrics_address(text: &str) -> Result<Address, String> {
    admin::parse_address(if text.is_empty() { ":8080" } else { text })
}

/// Values above the limit are accepted: users set them to lift the limit
/// (docs/reference/csi-driver.md#flags).
fn parse_reply_limit(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(bytes @ 1..) => Ok(bytes.min(MAX_REPLY) as u32),
        Ok(_) | Err(_) => Err("must be a number of bytes, 1 or more; values above 256 MiB count as 256 MiB".to_owned()),
    }
}

fn parse_driver_name(text: &str) -> Result<String, String> {
    // The rule for plugin names in the CSI specification; the name becomes part of a socket's path.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if text.len() <= 63 && bytes.iter().copied().all(allowed) && ends(bytes.first()) && ends(bytes.last()) {
        Ok(text.to_owned())
    } else {
        Err("must be a domain-like name of at most 63 letters, digits, '.' and '-'".to_owned())
    }
}
