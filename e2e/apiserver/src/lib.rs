//! A real kube-apiserver with its etcd: keys, users, our CRDs, and an audit log of all calls.
//!
//! The programs are those of KUBEBUILDER_ASSETS, as in the Kubernetes project; `make test` sets it.

mod account;
mod audit;
mod files;
mod processes;
mod resources;
mod server;

pub use account::{Account, User};
pub use audit::Call;
pub use processes::stop;
pub use resources::{CLASSES, STATUSES, resource};
pub use server::{PORT, Server};
