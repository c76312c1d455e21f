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

/// The group that files of this process get by themselves.
pub fn own_group() -> u32 {
    rustix::process::getegid().as_raw()
}

/// A number that nobody can foresee.
///
/// # Errors
/// The kernel has no random numbers (yet).
pub fn random_number() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}
