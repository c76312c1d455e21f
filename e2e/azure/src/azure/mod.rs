//! The handle that sets up the emulator and reads back what happened.
//!
//! Every method locks the state briefly and returns; none waits for a request.

pub(crate) mod handle;
mod identities;
mod objects;
mod records;
mod vaults;

pub use handle::Azure;
