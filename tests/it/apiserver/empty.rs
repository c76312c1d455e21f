//! An API server without objects of ours, for tests that install the driver as users do.
//!
//! It has its own place in the etcd of the other servers. One test at a time has it, and leaves it
//! as it was.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::cluster;
use crate::harness::harness;

const PORT: u16 = 6447;

/// Whether the server was started.
static STARTED: Mutex<bool> = Mutex::new(false);

pub(crate) struct EmptyServer {
    kubeconfig: PathBuf,
    _only: MutexGuard<'static, bool>,
}

/// Waits until no other test has the server; the first call starts it.
pub(crate) fn empty_server() -> Result<EmptyServer> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        cluster()?.serve_with(PORT, &["--etcd-prefix=/empty", "--allow-privileged=true"])?;
        *started = true;
    }
    let kubeconfig = cluster()?.server.user("admin", PORT)?.kubeconfig;
    Ok(EmptyServer { kubeconfig, _only: started })
}

impl EmptyServer {
    /// Makes a command use this server, kubectl of its version, and no configuration or cache of
    /// this machine's user.
    pub(crate) fn environment<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").context("KUBEBUILDER_ASSETS is not set")?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([PathBuf::from(assets)].into_iter().chain(env::split_paths(&path)))?;
        let home = harness().folder.path().join("home");
        Ok(command.env("KUBECONFIG", &self.kubeconfig).env("PATH", path).env("HOME", home))
    }
}
