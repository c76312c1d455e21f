//! The operating system: mounts, directories by descriptor, private sockets, process hardening.
//!
//! Knows nothing of volumes or Key Vault; every function is one step that callers combine and undo.
//! Linux only so far; another system becomes a sibling of these files, chosen here and nowhere else.

pub mod clock;
pub mod contained;
pub mod dir;
pub mod fingerprint;
pub mod mount;
pub mod mount_table;
pub mod process;
pub mod socket;

#[cfg(test)]
mod tests;
