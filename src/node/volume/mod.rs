//! A volume's life on this node: published, found published, unpublished.
//!
//! Does not know gRPC or Azure: requests come checked from `csi`, content comes through `source`.
//! `publish` is the place to start reading.
//!
//! ```text
//!   Unmounted ──publish──▶ Whole ──unpublish──▶ Unmounted
//!       │                    ▲
//!       │ (old kernels)      │ mend            a write that is cut off leaves
//!       ▼                    │                 Unfilled before the change-over,
//!   Unfilled ──publish──▶  Torn                Torn after it
//! ```

mod publish;
mod refresh;
mod republish;
mod unpublish;
mod volumes;

mod changes;
pub mod layout;
mod locks;
mod medium;
pub(in crate::node) mod registry;
mod request;
mod site;
mod size;
mod source;
mod target;
pub mod writer;

mod error;

#[cfg(test)]
mod tests;

pub use changes::{Change, Changes};
pub use error::{ClassNameError, Error, MountFailure};
pub use layout::Group;
pub use publish::{Attempt, Published};
pub(in crate::node) use refresh::Refreshed;
pub use registry::RotationOptions;
pub use request::PublishRequest;
pub use source::Sources;
pub(in crate::node) use source::{Fetch, Identity, check};
// What a fetch is described with.
pub(in crate::node) use crate::azure::provider::{HeldFiles, Purpose};
pub use target::{KubeletRoot, KubeletRootError, TargetPath, TargetPathError};
pub use volumes::Volumes;
