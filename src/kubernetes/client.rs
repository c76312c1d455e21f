//! The connection to the API server: credentials and deadlines.
//!
//! Makes no request, so that the driver starts without an API server. TLS is rustls with ring, as
//! everywhere in this program.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::ConnectError;

/// The API server is in the same cluster: a longer wait would only hide that it is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause within a response. A watch may be silent for 290 s, after which the server
/// ends it.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the credentials come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A kubeconfig file: its current context.
    File(PathBuf),
    /// The files in `KUBECONFIG`.
    Environment,
    /// The pod's service account.
    InCluster,
}

impl Credentials {
    /// The file of the flag, else `KUBECONFIG`, else the pod's service account.
    pub fn from_flag(kubeconfig: Option<&Path>) -> Credentials {
        match kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Credentials::File(path.to_owned()),
            None if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) => Credentials::Environment,
            None => Credentials::InCluster,
        }
    }
}

/// A client of the API server. Cheap to clone; all clones share connections.
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
/// There are no usable credentials.
pub async fn connect(credentials: &Credentials, user_agent: &str) -> Result<Connection, ConnectError> {
    let mut config = config(credentials).await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
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
