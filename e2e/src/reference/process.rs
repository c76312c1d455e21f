//! A reference provider as a process of its own, started and ended by a test.
//!
//! Told what to do by its control address, and asked there what it saw.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::Options;
use crate::driver::{http_get, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running provider. Dropping it kills it.
#[derive(Debug)]
pub struct ProviderProcess {
    child: Child,
    socket: PathBuf,
    control: SocketAddr,
}

/// A request that it saw, without tokens and values.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// The attributes but for the tokens.
    pub attributes: BTreeMap<String, String>,
    /// The keys of the secrets; `None` for `null`.
    pub secrets: Option<Vec<String>>,
    /// The permission.
    pub permission: u32,
    /// The target path.
    pub target: String,
    /// The current object versions, by id.
    pub held: BTreeMap<String, String>,
    /// The audiences that tokens came for.
    pub audiences: Vec<String>,
}

impl ProviderProcess {
    /// Starts `command`, which is to run a provider with these options, and waits until it listens.
    ///
    /// # Errors
    /// It ends, or does not listen in time.
    pub fn start(mut command: Command, options: &Options) -> Result<ProviderProcess> {
        let Options { socket, control } = options.clone();
        command.arg("--socket").arg(&socket).arg("--control").arg(control.to_string()).stdin(Stdio::null());
        let child = command.spawn().context("cannot start the reference provider")?;
        let mut provider = ProviderProcess { child, socket, control };
        // Its control comes after its socket.
        wait_for("the reference provider listens", PATIENCE, || {
            ensure!(provider.child.try_wait()?.is_none(), "the reference provider has ended");
            Ok(http_get(&control.to_string(), "/versions").is_ok())
        })?;
        Ok(provider)
    }

    /// Its socket.
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// Tells it something: a path of its control and its query.
    ///
    /// # Errors
    /// It does not answer, or does not know the path.
    pub fn tell(&self, path: &str, query: &[(&str, &str)]) -> Result<String> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let (status, body) = http_get(&self.control.to_string(), &format!("{path}?{query}"))?;
        ensure!(status == 200, "{path} is answered {status}");
        Ok(body)
    }

    /// The requests that it saw so far.
    ///
    /// # Errors
    /// It does not answer.
    pub fn requests(&self) -> Result<Vec<Seen>> {
        Ok(serde_json::from_str(&self.tell("/requests", &[])?)?)
    }

    /// How often it was asked for its version.
    ///
    /// # Errors
    /// It does not answer.
    pub fn version_calls(&self) -> Result<usize> {
        Ok(self.tell("/versions", &[])?.parse()?)
    }

    /// Kills it at once; its socket stays, and nobody listens on it.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it by SIGTERM: its open calls end, and its socket goes.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        wait_for("the reference provider ends", PATIENCE, || Ok(self.child.try_wait()?.is_some()))
    }
}

impl Drop for ProviderProcess {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
