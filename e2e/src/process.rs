//! A child process with its output in a file. Dropping it kills it.
//!
//! `driver` and `provider` build the command and the condition for readiness.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The timeout of a start and of an exit.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`, and waits until it is `ready`; returns
    /// how long that took.
    pub(crate) fn start(mut command: Command, log: &Path, ready: impl Fn() -> bool) -> Result<(Process, Duration)> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let began = Instant::now();
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut process = Process { child, log: log.to_owned() };
        while !ready() {
            if let Some(status) = process.child.try_wait()? {
                bail!("the process exited ({status}):\n{}", process.log());
            }
            if began.elapsed() > TIMEOUT {
                bail!("the process is not ready after {TIMEOUT:?}:\n{}", process.log());
            }
            pause();
        }
        Ok((process, began.elapsed()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends SIGTERM, as the kubelet does, and waits for the exit.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_exit("after SIGTERM")
    }

    pub(crate) fn wait_for_exit(&mut self, when: &str) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > TIMEOUT {
                bail!("the process did not exit {when} within {TIMEOUT:?}:\n{}", self.log());
            }
            pause();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pause between two checks of a condition on this machine.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn pause() {
    std::thread::park_timeout(PAUSE);
}
