//! The flags of the node driver, and what a value must look like.
//!
//! Names and defaults are upstream's where the meaning is upstream's
//! (docs/reference/csi-driver.md#flags). Values are checked here, alone and without the network;
//! what they lead to is for `node`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, ValueHint};

use crate::cmd::azure::AzureArgs;
use crate::cmd::process::{ProcessArgs, parse_endpoint};
use crate::formats::duration;
use crate::node::volume::KubeletRoot;
use crate::server::admin;

/// The shortest interval of anything that is done over and over again.
const SHORTEST: Duration = Duration::from_millis(10);
/// The shortest pause between two looks at a Secret that is as it should be: each is a request.
const SHORTEST_CHECK: Duration = Duration::from_secs(1);

/// The largest `--max-call-recv-msg-size`: a volume is in memory while it is fetched, and twice in its tmpfs.
const LARGEST_REPLY: i64 = 256 << 20;

/// Who fills volumes of provider azure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum AzureProvider {
    /// This program.
    Builtin,
    /// Another one, by its socket.
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
    /// The kubelet's plugins_registry folder; without it the driver does not register itself.
    #[arg(long, value_name = "DIR", requires = "kubelet_registration_path")]
    pub(super) registration_dir: Option<PathBuf>,
    /// Path of the CSI socket on the host, as the kubelet sees it.
    #[arg(long, value_name = "PATH", requires = "registration_dir")]
    pub(super) kubelet_registration_path: Option<PathBuf>,
    /// The kubelet's root directory (its --root-dir). With it, volumes are published below it only, and nothing else on the host is
    /// mounted on, cleared or removed; without it, wherever the kubelet says.
    #[arg(long, value_name = "DIR")]
    pub(super) kubelet_root: Option<KubeletRoot>,
    /// Take SecretProviderClasses from the YAML manifests in this folder instead of the Kubernetes API.
    #[arg(long, value_name = "DIR")]
    pub(super) manifests: Option<PathBuf>,
    /// Kubeconfig file for the Kubernetes API; without it the files of KUBECONFIG, else the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Bring the volumes of running pods up to date; the CSIDriver object must have requiresRepublish: true.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(super) enable_secret_rotation: bool,
    /// How often volumes are brought up to date, unless their class says otherwise.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = parse_interval)]
    pub(super) rotation_poll_interval: Duration,
    /// How long the kubelet takes at most until it calls again for a volume: its syncFrequency and half as much. Credentials
    /// that it does not renew for three times as long are dropped.
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = parse_interval)]
    pub(super) republish_period: Duration,
    /// Who fills volumes of provider azure: this program, or another one by its socket azure.sock.
    #[arg(long, value_enum, default_value_t = AzureProvider::Builtin, value_name = "WHO")]
    pub(super) azure_provider: AzureProvider,
    /// Folder of the sockets of other providers, searched last.
    #[arg(long, value_name = "DIR", default_value = "/var/run/secrets-store-csi-providers")]
    pub(super) provider_volume: PathBuf,
    /// More such folders, comma-separated, searched first.
    #[arg(long, value_name = "DIRS", default_value = "/etc/kubernetes/secrets-store-csi-providers")]
    pub(super) additional_provider_volume_paths: String,
    /// The largest reply that is taken from another provider, in bytes; above 4 MiB, its volumes may be as large, too.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, value_parser = parse_reply_limit)]
    pub(super) max_call_recv_msg_size: u32,
    /// Ask other providers for a sign of life now and then, for the metric provider_healthy.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(super) provider_health_check: bool,
    /// How often.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = parse_interval)]
    pub(super) provider_health_check_interval: Duration,
    #[command(flatten)]
    pub(super) azure: AzureArgs,
    /// Take this taint off the node once the kubelet knows the driver; nothing if empty.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    pub(super) startup_taint: String,
    /// Write the Kubernetes Secrets that classes ask for in secretObjects; needs the Kubernetes API.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub(super) sync_secret: bool,
    /// How often Secrets that are as they should be are looked at, so that one that was deleted or changed by hand comes back.
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = parse_check_interval)]
    pub(super) secret_check_interval: Duration,
    /// Address for /metrics; 0 for none, and :8080 if empty.
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

/// Reads a duration that is waited for over and over again.
fn parse_interval(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST, text)
}

fn parse_check_interval(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST_CHECK, text)
}

fn at_least(shortest: Duration, text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < shortest { Err(format!("must be at least {shortest:?}")) } else { Ok(interval) }
}

/// Nothing means what it means to upstream's metrics library (docs/reference/csi-driver.md#flags).
fn parse_metrics_address(text: &str) -> Result<Address, String> {
    admin::parse_address(if text.is_empty() { ":8080" } else { text })
}

/// Whoever asks for more than can be had wants no limit (docs/reference/csi-driver.md#flags).
fn parse_reply_limit(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(bytes @ 1..) => Ok(bytes.min(LARGEST_REPLY) as u32),
        Ok(_) | Err(_) => Err("must be a number of bytes, 1 or more; above 256 MiB it counts as that".to_owned()),
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
