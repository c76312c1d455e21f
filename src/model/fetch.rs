//! A fetch: which objects, for whom, and until when.
//!
//! The one request that every role makes and every backend accepts. The backend determines which
//! credentials of the caller it needs.

use tokio::time::Instant;

use super::caller::Caller;
use super::class::Class;

/// Why a fetch is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A pod waits for its volume.
    Mount,
    /// A published volume is brought up to date: nothing older than the fetch counts, and mounts go
    /// first (docs/decisions.md#d7).
    Refresh,
}

/// All objects of a class, fetched for one volume.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    /// The class, with provider and parameters.
    pub class: &'a Class,
    /// The caller; its attributes override the class's parameters.
    pub caller: &'a Caller,
    /// The volume's target path. It names the pod if it is a kubelet's; nothing is read or written
    /// there.
    pub target: &'a str,
    /// Why the fetch is made.
    pub purpose: Purpose,
    /// When the fetch must have ended.
    pub deadline: Instant,
}
