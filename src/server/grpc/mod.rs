//! What all gRPC servers of the program share: limits of connections, deadlines of calls, and how
//! the reason of a failure travels.
//!
//! Serves nothing itself; `csi` and `plugin` do. `server` has the limits of one connection,
//! `connection_limits` those of all connections of a socket.

mod channel;
mod connection_limits;
mod connections;
mod deadline;
mod reason;
mod request_collector;
mod server;

#[cfg(test)]
mod tests;

pub(crate) use channel::channel;
pub(crate) use connections::connections;
pub(crate) use deadline::deadline;
#[cfg(test)]
pub(crate) use deadline::parse_timeout;
pub use reason::{failed, reason};
pub(crate) use request_collector::MESSAGE;
pub(crate) use server::server;
