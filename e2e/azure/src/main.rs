//! The `azure-emulator` program: the emulator with its admin API.
//!
//! Reads options and the seed file, starts [`Emulator`], and prints one line when it is ready.
//! Exits on SIGTERM and SIGINT, and with `--until-stdin-closes` when its standard input closes.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use azure_emulator::{Emulator, Options, Seed, TokenProxy, TokenProxyOptions};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Entra ID, IMDS and Azure Key Vault on loopback, over real HTTPS, for tests and demos.
///
/// Clients must trust the CA that --ca-out writes, and must reach the emulator under the real host
/// names, for example by lines in /etc/hosts:
///
///   127.0.0.1 login.microsoftonline.com demo.vault.azure.net
///
/// Tenants, clients, vaults and secrets come from --seed or through the admin API. All of it is in
/// memory and is lost when the program exits.
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// The address of Entra ID and Key Vault. Clients expect port 443, which needs root; port 0
    /// selects a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:443")]
    listen: SocketAddr,

    /// The address of the admin API: plain HTTP, no password, loopback only.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8440")]
    admin: SocketAddr,

    /// The address of the metadata service (IMDS), which gives tokens of managed identities over
    /// plain HTTP. Clients expect 169.254.169.254:80. Without this flag there is no such service.
    #[arg(long, value_name = "ADDRESS")]
    imds: Option<SocketAddr>,

    /// The address of an AKS cluster's API server and token proxy, for identity binding. Needs
    /// --cluster-ca-out. Without this flag there is no cluster.
    #[arg(long, value_name = "ADDRESS", requires = "cluster_ca_out")]
    token_proxy: Option<SocketAddr>,

    /// The cluster's id, from which clients compute the proxy's name.
    #[arg(long, value_name = "ID", default_value = "696995ccb303450001b31a18", requires = "token_proxy")]
    cluster_id: String,

    /// Write the certificate of the cluster's CA to this file (PEM).
    #[arg(long, value_name = "FILE", requires = "token_proxy")]
    cluster_ca_out: Option<PathBuf>,

    /// Write the certificate of the CA to this file (PEM). Its key is never written.
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,

    /// A name of a custom cloud; may be repeated. `*.vault.stack.test` adds a vault suffix,
    /// `login.stack.test` a login host.
    #[arg(long, value_name = "NAME")]
    dns_name: Vec<String>,

    /// A JSON document with the first tenants, clients, vaults, grants and secrets.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,

    /// The least latency of every response, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency: u64,

    /// Also exit when standard input closes, so that the emulator never outlives its parent.
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Before the readiness line, so that a signal after it is never lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let (emulator, proxy) = start(&arguments)?;
    announce(&emulator, proxy.as_ref()).context("cannot print to standard output")?;
    let stdin_closed = async {
        if arguments.until_stdin_closes {
            watch_stdin().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closed => {}
    }
    drop(emulator);
    Ok(())
}

fn start(arguments: &Arguments) -> anyhow::Result<(Emulator, Option<TokenProxy>)> {
    let seed = arguments.seed.as_deref().map(read_seed).transpose()?;
    let emulator = Emulator::start(Options {
        listen: arguments.listen,
        admin: Some(arguments.admin),
        dns_names: arguments.dns_name.clone(),
        imds: arguments.imds,
        base_latency: Duration::from_millis(arguments.latency),
    })?;
    if let Some(seed) = seed {
        let applied = emulator.azure().apply(&seed);
        applied.context("the seed file is not consistent")?;
    }
    if let Some(path) = &arguments.ca_out {
        write_ca(path, emulator.ca_pem())?;
    }
    let proxy = arguments.token_proxy.map(|listen| {
        let cluster_id = arguments.cluster_id.clone();
        emulator.start_token_proxy(&TokenProxyOptions { listen, cluster_id, path: "/".to_owned() })
    });
    let proxy = proxy.transpose()?;
    if let (Some(path), Some(proxy)) = (&arguments.cluster_ca_out, &proxy) {
        write_ca(path, proxy.ca_pem())?;
    }
    Ok((emulator, proxy))
}

fn write_ca(path: &Path, pem: &str) -> anyhow::Result<()> {
    std::fs::write(path, pem).with_context(|| format!("cannot write the CA certificate to {}", path.display()))
}

fn read_seed(path: &Path) -> anyhow::Result<Seed> {
    let text = std::fs::read(path).with_context(|| format!("cannot read the seed file {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("the seed file {} is not valid", path.display()))
}

fn announce(emulator: &Emulator, proxy: Option<&TokenProxy>) -> std::io::Result<()> {
    let mut line = format!("azure-emulator ready: https on {}", emulator.address());
    if let Some(admin) = emulator.admin_address() {
        line.push_str(&format!(", admin http://{admin}"));
    }
    if let Some(imds) = emulator.imds_address() {
        line.push_str(&format!(", imds http://{imds}"));
    }
    if let Some(proxy) = proxy {
        line.push_str(&format!(", token proxy {} on {}", proxy.sni(), proxy.address()));
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Returns at the end of standard input.
async fn watch_stdin() {
    let (closed, end) = oneshot::channel::<()>();
    // On a thread: a blocking read on the runtime would keep it from shutting down.
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while matches!(std::io::stdin().read(&mut bytes), Ok(count) if count > 0) {}
        drop(closed);
    });
    // The sender is only ever dropped, which ends the wait with an error.
    let _ = end.await;
}
