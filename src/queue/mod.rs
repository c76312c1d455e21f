//! When and why work is due: notifications of changes, a work queue, backoff.
//!
//! Independent of Kubernetes and of volumes.

pub mod backoff;
pub mod notify;
pub mod warn_once;
pub mod work_queue;

#[cfg(test)]
mod tests;
