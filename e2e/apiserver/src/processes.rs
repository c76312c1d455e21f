//! Child processes that never outlive this process: the kernel kills them when it exits.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};

use anyhow::{Context as _, Result};

static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Kills all child processes.
pub fn stop() {
    for child in children().iter_mut().rev() {
        // An error means that it has exited already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn children() -> MutexGuard<'static, Vec<Child>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a child process.
pub(super) fn kill(id: u32) -> Result<()> {
    let mut children = children();
    let at = children.iter().position(|child| child.id() == id).context("not a child process")?;
    let mut child = children.remove(at);
    let killed = child.kill();
    child.wait()?;
    Ok(killed?)
}

/// A command to start, and a channel for the result.
type Start = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a program that the kernel kills when this process exits.
pub(super) fn run(program: &Path, flags: Vec<String>, log: &Path) -> Result<u32> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg(program).args(flags).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // The kernel sends the signal when the thread that started the process exits, so a permanent
    // thread starts all of them.
    static STARTER: OnceLock<Mutex<mpsc::Sender<Start>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (starts, queue) = mpsc::channel::<Start>();
        std::thread::spawn(move || {
            for (mut command, result) in queue {
                // The receiver below waits for it.
                let _ = result.send(command.spawn());
            }
        });
        Mutex::new(starts)
    });
    let (result, started) = mpsc::channel();
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, result))?;
    let child = started.recv()?.with_context(|| format!("cannot start {} by setpriv", program.display()))?;
    let id = child.id();
    children().push(child);
    Ok(id)
}

pub(super) fn running(id: u32) -> bool {
    let mut children = children();
    children.iter_mut().any(|child| child.id() == id && matches!(child.try_wait(), Ok(None)))
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
