//! A reference provider as a child process of a test.
//!
//! Its control API changes its responses and returns the requests that it received.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::options::Options;
use crate::driver::{http_get, wait_for};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A running provider. Dropping it kills it.
#[derive(Debug)]
pub struct ReferenceProvider {
    child: Child,
    socket: PathBuf,
    control_address: SocketAddr,
}

/// A request that the provider received, without tokens and values.
#[derive(Debug, Clone, Deserialize)]
pub struct RecordedRequest {
    /// The attributes, without the tokens.
    pub attributes: BTreeMap<String, String>,
    /// The keys of the secrets; `None` for `null`.
    pub secrets: Option<Vec<String>>,
    /// The permission.
    pub permission: u32,
    /// The target path.
    pub target: String,
    /// The current object versions, by id.
    pub held: BTreeMap<String, String>,
    /// The audiences of the tokens.
    pub audiences: Vec<String>,
}

impl ReferenceProvider {
    /// Starts `command`, which must run a provider with these options, and waits until it listens.
    ///
    /// # Errors
    /// It exits, or does not listen in time.
    pub fn start(mut command: Command, options: &Options) -> Result<ReferenceProvider> {
        let Options { socket, control } = options.clone();
        command.arg("--socket").arg(&socket).arg("--control").arg(control.to_string()).stdin(Stdio::null());
        let child = command.spawn().context("cannot start the reference provider")?;
        let mut provider = ReferenceProvider { child, socket, control_address: control };
        // The provider binds its control address after its socket.
        wait_for("the reference provider listens", TIMEOUT, || {
            ensure!(provider.child.try_wait()?.is_none(), "the reference provider exited");
            Ok(http_get(&control.to_string(), "/versions").is_ok())
        })?;
        Ok(provider)
    }

    /// Its socket.
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// Calls a path of its control API with a query.
    ///
    /// # Errors
    /// It does not respond, or has no such path.
    pub fn control(&self, path: &str, query: &[(&str, &str)]) -> Result<String> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let (status, body) = http_get(&self.control_address.to_string(), &format!("{path}?{query}"))?;
        ensure!(status == 200, "{path} responds with {status}");
        Ok(body)
    }

    /// The requests that it received so far.
    ///
    /// # Errors
    /// It does not respond.
    pub fn requests(&self) -> Result<Vec<RecordedRequest>> {
        Ok(serde_json::from_str(&self.control("/requests", &[])?)?)
    }

    /// The number of Version calls.
    ///
    /// # Errors
    /// It does not respond.
    pub fn version_calls(&self) -> Result<usize> {
        Ok(self.control("/versions", &[])?.parse()?)
    }

    /// Kills it; its socket remains without a listener.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it with SIGTERM: it completes open calls and removes its socket.
    ///
    /// # Errors
    /// It does not exit in time.
    pub fn terminate(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        wait_for("the reference provider exits", TIMEOUT, || Ok(self.child.try_wait()?.is_some()))
    }
}

impl Drop for ReferenceProvider {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
