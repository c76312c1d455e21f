//! The connection to the API server: whose credentials, which deadlines.
//!
//! Reads files and variables only; the first request is somebody else's, so that the driver starts without an API
//! server. TLS is rustls with ring, as everywhere in this program.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::ConnectError;

/// To the API server within a cluster; a longer wait only hides that it is away.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest silence within an answer. A watch is quiet for up to 290 s, after which the server ends it.
const SILENCE: Duration = Duration::from_secs(300);

/// Whose credentials are used.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A kubeconfig file: its current context.
    File(PathBuf),
    /// The files that `KUBECONFIG` names.
    Environment,
    /// The pod's service account.
    InCluster,
}

impl Credentials {
    /// What flag and environment say: the file, else `KUBECONFIG`, else the pod's service account.
    pub fn from_flag(kubeconfig: Option<&Path>) -> Credentials {
        match kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Credentials::File(path.to_owned()),
            None if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) => Credentials::Environment,
            None => Credentials::InCluster,
        }
    }
}

/// A connection to the API server, or rather the means to make one. Cheap to clone; all clones share connections.
#[derive(Clone)]
pub struct Connection(Client);

impl Connection {
    pub(super) fn client(&self) -> Client {
        self.0.clone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Prepares a connection; makes no request. Must run inside a runtime.
///
/// # Errors
/// No usable credentials, with what to do.
pub async fn connect(credentials: &Credentials, user_agent: &str) -> Result<Connection, ConnectError> {
    let mut config = config(credentials).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    if let Ok(agent) = user_agent.parse() {
        config.headers.push((USER_AGENT, agent));
    }
    Client::try_from(config).map(Connection).map_err(ConnectError::Client)
}

async fn config(credentials: &Credentials) -> Result<Config, ConnectError> {
    let (from, kubeconfig) = match credentials {
        Credentials::InCluster => {
            return Config::incluster().map_err(|source| ConnectError::InCluster(Box::new(source)));
        }
        Credentials::File(path) => (path.display().to_string(), Kubeconfig::read_from(path)),
        Credentials::Environment => {
            let read = Kubeconfig::from_env().map(Option::unwrap_or_default);
            ("the files of KUBECONFIG".to_owned(), read)
        }
    };
    let wrong = |source| ConnectError::Kubeconfig { from: from.clone(), source: Box::new(source) };
    let kubeconfig = kubeconfig.map_err(wrong)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)
}
