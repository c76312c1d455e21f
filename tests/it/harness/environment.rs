//! The environment of the running test: which provider fetches, and whether drivers
//! get `--kubelet-root`.
//!
//! A test runs on one thread, so the environment is a thread-local. It is restored also after a
//! panic, since the thread goes on to other tests. This file holds the state only: `setup` and
//! `external_provider` act on it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tonic::Status;

/// The result of a publish: the modes of its files, or code and Reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Published(Vec<(String, u32)>),
    Refused(String),
}

thread_local! {
    /// How many external providers this test has started;
    /// `None` while drivers use the built-in one.
    static EXTERNAL_PROVIDERS: Cell<Option<usize>> = const { Cell::new(None) };
    static KUBELET_ROOT: Cell<bool> = const { Cell::new(false) };
    static OUTCOMES: RefCell<Vec<Outcome>> = const { RefCell::new(Vec::new()) };
}

/// Runs something whose drivers use our provider behind its socket.
pub(crate) fn with_external_provider<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    EXTERNAL_PROVIDERS.set(Some(0));
    let result = catch_unwind(AssertUnwindSafe(run));
    let started = EXTERNAL_PROVIDERS.take();
    let result = result.unwrap_or_else(|panic| resume_unwind(panic))?;
    ensure!(started > Some(0), "no provider was started");
    Ok(result)
}

pub(crate) fn has_external_provider() -> bool {
    EXTERNAL_PROVIDERS.get().is_some()
}

pub(super) fn count_external_provider() {
    EXTERNAL_PROVIDERS.set(EXTERNAL_PROVIDERS.get().map(|started| started + 1));
}

/// Runs a test whose drivers get `--kubelet-root`.
pub(crate) fn with_kubelet_root(test: fn() -> Result<()>) -> Result<()> {
    KUBELET_ROOT.set(true);
    let result = catch_unwind(test);
    KUBELET_ROOT.set(false);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

pub(super) fn has_kubelet_root() -> bool {
    KUBELET_ROOT.get()
}

/// Records the result of a publish. Equal results in a row count once: tests poll with publishes.
pub(super) fn record_outcome(published: &Result<PathBuf, Status>) -> Result<()> {
    let outcome = match published {
        Ok(target) => {
            let files = tree(target)?;
            Outcome::Published(files.into_iter().map(|(path, (mode, _))| (path, mode)).collect())
        }
        Err(status) => {
            let message = status.message();
            let reason = message.rsplit_once(" (").and_then(|(_, end)| end.strip_suffix(')'));
            Outcome::Refused(format!("{:?} {}", status.code(), reason.unwrap_or(message)))
        }
    };
    OUTCOMES.with_borrow_mut(|outcomes| {
        if outcomes.last() != Some(&outcome) {
            outcomes.push(outcome);
        }
    });
    Ok(())
}

/// The results of this thread's publishes since the last call.
pub(crate) fn take_outcomes() -> Vec<Outcome> {
    OUTCOMES.take()
}

/// The files of a volume as a pod sees them: mode and content by path.
pub(crate) fn tree(target: &Path) -> Result<BTreeMap<String, (u32, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![target.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.parent() == Some(target)
                && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
            {
                continue;
            }
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() {
                pending.push(path);
            } else {
                let relative = path.strip_prefix(target)?.display().to_string();
                files.insert(relative, (metadata.permissions().mode() & 0o7777, fs::read(&path)?));
            }
        }
    }
    Ok(files)
}
