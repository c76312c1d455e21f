//! How tasks learn what is due. Independent of Kubernetes and of volumes.

pub mod notify;
