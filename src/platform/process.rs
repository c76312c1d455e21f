//! What a process that holds secrets asks of the operating system.
//!
//! Sets limits on itself only; it neither drops privileges nor changes user.
//! Called once by `cmd` before anything secret is read.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Makes sure that no core file is ever written, and that other processes of the same user cannot read our memory.
///
/// # Errors
/// What the kernel says.
pub fn forbid_core_files() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Raises the limit of open descriptors to what the process may have, and says how many that is.
///
/// The soft limit is 1,024 by tradition, for the sake of programs that use select(2); we do not.
///
/// # Errors
/// What the kernel says; the limit stays what it was.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(descriptor_limit())
}

/// How many descriptors may be open.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Gives the system back what the process has freed.
///
/// The C library keeps free pages that lie below one that is in use, for good: after many clients at once, most of what
/// they had. Takes some milliseconds, in which other threads may have to wait for memory.
#[allow(unsafe_code)] // There is no safe call for it.
pub fn return_memory() {
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it moves nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
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
    Ok(u32::from_ne_bytes(random_bytes()?))
}

/// Bytes that nobody can foresee: at most 256, so that the kernel gives all of them at once (getrandom(2)).
///
/// # Errors
/// The kernel has no random numbers (yet).
pub fn random_bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    const { assert!(COUNT <= 256) };
    let mut bytes = [0; COUNT];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

/// Lets all other threads of the process run before the calling one where processors are scarce.
///
/// # Errors
/// What the kernel says; lowering one's own priority needs no right.
pub fn lower_thread_priority() -> io::Result<()> {
    /// A tenth of the weight of a thread that has not asked for less (sched(7)).
    const NICE: i32 = 10;
    // Linux keeps the nice value for each thread, and takes no process id for the calling one (setpriority(2), "C
    // library/kernel differences").
    Ok(rustix::process::setpriority_process(None, NICE)?)
}
