//! Process-wide settings: core files, limits, priority, memory, random numbers.
//!
//! Changes the own process only; neither drops privileges nor changes the user. `cmd` forbids core
//! files before it reads any secret.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Prevents core files, and prevents other processes of the same user from reading this process's
/// memory.
///
/// # Errors
/// The kernel refuses.
pub fn forbid_core_files() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Raises the soft limit of open descriptors to the hard limit, and returns it.
///
/// The soft limit is usually 1,024, for programs that use select(2); this one does not.
///
/// # Errors
/// The kernel refuses; the limit is unchanged.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(descriptor_limit())
}

/// The soft limit of open descriptors.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns freed memory to the operating system.
///
/// Without this, the C library keeps free pages below a page in use forever: after a burst of
/// clients, most of their memory. Takes some milliseconds, during which other threads may wait for
/// allocations.
#[allow(unsafe_code)] // No crate has a safe wrapper for it.
pub fn return_memory() {
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it moves no memory in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The group of new files of this process.
pub fn own_group() -> u32 {
    rustix::process::getegid().as_raw()
}

/// An unpredictable number.
///
/// # Errors
/// The kernel has no random numbers (yet).
pub fn random_number() -> io::Result<u32> {
    Ok(u32::from_ne_bytes(random_bytes()?))
}

/// Unpredictable bytes: at most 256, so that one call of getrandom(2) returns all of them.
///
/// # Errors
/// The kernel has no random numbers (yet).
pub fn random_bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    const { assert!(COUNT <= 256) };
    let mut bytes = [0; COUNT];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

/// Lowers the priority of the calling thread, so that other threads get the CPU first.
///
/// # Errors
/// The kernel refuses; lowering the own priority needs no privilege.
pub fn lower_thread_priority() -> io::Result<()> {
    /// A tenth of the weight of a thread with the default nice value (sched(7)).
    const NICE: i32 = 10;
    // On Linux the nice value belongs to a thread, and no process id means the calling thread
    // (setpriority(2), "C library/kernel differences").
    Ok(rustix::process::setpriority_process(None, NICE)?)
}
