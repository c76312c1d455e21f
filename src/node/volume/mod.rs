//! The volumes of this node: published, republished, refreshed and unpublished.
//!
//! Independent of gRPC and Azure: `csi` checks the requests, and `backend` fetches the payloads.
//! Start reading in `publish`.
//!
//! ```text
//!   Unmounted ──publish──▶ Complete ──unpublish──▶ Unmounted
//!       │                     ▲
//!       │ (old kernels)       │ repair         a write that is interrupted leaves
//!       ▼                     │                Unfilled before the switch of ..data,
//!   Unfilled ──publish──▶ Interrupted          Interrupted after it
//! ```

mod publish;
mod refresh;
mod republish;
mod unpublish;
mod volumes;

mod changes;
mod class;
pub mod layout;
mod locks;
mod mount_point;
pub(in crate::node) mod registry;
mod request;
mod size;
mod target;
mod tmpfs;
pub mod writer;

mod error;

#[cfg(test)]
mod tests;

pub use changes::{Change, Changes};
pub(in crate::node) use class::check;
pub use error::{ClassNameError, Error, MountFailure};
pub use layout::Group;
pub use publish::{Attempt, Published};
pub(in crate::node) use refresh::Refreshed;
pub use registry::RotationOptions;
pub use request::PublishRequest;
pub use target::{KubeletRoot, KubeletRootError, TargetPath, TargetPathError};
pub use volumes::Volumes;
