//! What all gRPC servers of ours share: connections that kubelets and drivers may open, and how long a call may take.
//!
//! And how a failure's reason travels. Knows no service; `csi` and `plugin` serve. `server` has the limits of a
//! connection, `places` those of all together.

mod arrivals;
mod channel;
mod connections;
mod deadline;
mod places;
mod reason;
mod server;

#[cfg(test)]
mod tests;

pub(crate) use channel::channel;
pub(crate) use connections::connections;
pub(crate) use deadline::deadline;
#[cfg(test)]
pub(crate) use deadline::parse_timeout;
pub use reason::{failed, reason};
pub(crate) use server::{MESSAGE, server};
