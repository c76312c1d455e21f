//! Key Vault: the responses of a vault's host.
//!
//! Each kind of object has a module for its operations, after `checks` and `access`.

mod access;
mod certificates;
mod checks;
mod errors;
mod keys;
mod paging;
mod secrets;
mod service;
mod update;
mod wire;

pub(crate) use service::{error_response, no_such_host, respond};
