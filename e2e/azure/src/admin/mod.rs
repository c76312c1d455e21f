//! The admin API: what [`Azure`](crate::Azure) does, over plain HTTP and JSON.
//!
//! It has no password, so it listens on loopback only, which `emulator` checks. A handler parses
//! its request and makes one call on the handle.

mod identities;
mod objects;
mod records;
mod reply;
mod server;
mod setup;

pub(crate) use server::run;
