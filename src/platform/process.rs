//! What a process that holds secrets asks of the operating system.
//!
//! Sets limits on itself only; it neither drops privileges nor changes user.
//! Called once by `cmd` before anything secret is read.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes sure that no core file is ever written, and that other processes of the same user cannot read our memory.
///
/// # Errors
/// What the kernel says.
pub fn forbid_core_files() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
