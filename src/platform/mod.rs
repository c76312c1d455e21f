//! The operating system: mounts, directories by descriptor, private sockets, process hardening.
//!
//! Every function is one step that callers combine and undo; no module here depends on volumes or
//! Key Vault. Supports Linux only. Code for another system would be a sibling of these files,
//! selected here and nowhere else.

pub mod clock;
pub mod contained;
pub mod dir;
pub mod fingerprint;
pub mod mount;
pub mod mount_id;
pub mod mount_table;
pub mod process;
pub mod socket;

#[cfg(test)]
mod tests;
