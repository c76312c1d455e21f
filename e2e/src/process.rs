//! A program of ours as a process: its output goes to a file that tests read, and it is ended by its id.
//!
//! `driver` and `provider` say how it is started and when it is ready. Dropping one kills it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to start or end before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`, and waits until it is `ready`; says how long that took.
    pub(crate) fn start(mut command: Command, log: &Path, ready: impl Fn() -> bool) -> Result<(Process, Duration)> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let began = Instant::now();
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut process = Process { child, log: log.to_owned() };
        while !ready() {
            if let Some(status) = process.child.try_wait()? {
                bail!("the process ended ({status}):\n{}", process.log());
            }
            if began.elapsed() > PATIENCE {
                bail!("the process is not ready after {PATIENCE:?}:\n{}", process.log());
            }
            pause();
        }
        Ok((process, began.elapsed()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as Kubernetes does, with SIGTERM, and waits.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended("after SIGTERM")
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self, when: &str) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > PATIENCE {
                bail!("the process has not ended {when} within {PATIENCE:?}:\n{}", self.log());
            }
            pause();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Kills it at once.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between two looks at a condition of this machine.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// Gives way between two looks at a condition.
pub(crate) fn pause() {
    std::thread::park_timeout(PAUSE);
}
