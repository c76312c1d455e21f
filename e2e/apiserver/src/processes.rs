//! Programs that end with this process, whatever happens to it.
//!
//! Knows nothing of what they are. Each is killed by its id, and by the kernel when this process is gone.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};

use anyhow::{Context as _, Result};

/// Every process of ours that still runs.
static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Ends every process that was started here.
pub fn stop() {
    for child in children().iter_mut().rev() {
        // Gone already is fine.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn children() -> MutexGuard<'static, Vec<Child>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a program at once.
pub(super) fn kill(id: u32) -> Result<()> {
    let mut children = children();
    let at = children.iter().position(|child| child.id() == id).context("not ours")?;
    let mut child = children.remove(at);
    let killed = child.kill();
    child.wait()?;
    Ok(killed?)
}

/// A program to start, and where to say how that went.
type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a program that ends with this process, whatever happens to it.
pub(super) fn run(program: &Path, flags: Vec<String>, log: &Path) -> Result<u32> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg(program).args(flags).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // The signal comes when the thread ends that started the process, so that one is needed that stays.
    static STARTER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, waiting) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in waiting {
                // Whoever asked waits for it.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, started) = mpsc::channel();
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer))?;
    let child = started.recv()?.with_context(|| format!("cannot start {} by setpriv", program.display()))?;
    let id = child.id();
    children().push(child);
    Ok(id)
}

/// Whether it still runs.
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
