//! From files and a secretObject to a Kubernetes Secret.
//!
//! `Material` takes files apart and builds the content that a secretObject asks for; `Writer`
//! compares it with the Secret on the API server and writes the difference. Both are independent of
//! volumes, pods and of when they run: the caller brings the files, the owners, and the
//! [`SecretManager`](crate::kubernetes::SecretManager) as which Secrets are written.
//!
//! # Guarantees
//! A Secret without the manager's label is never changed. An unchanged Secret costs no write, and
//! at most one GET of its metadata.

mod desired;
mod error;
mod material;
mod mistake;
mod plan;
mod tls;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use self::desired::{Files, file_names, secret_name};
pub(crate) use self::error::Error;
pub(crate) use self::material::{FileOpener, Material};
pub(crate) use self::mistake::{Excerpt, Mistake};
pub(crate) use self::plan::{DesiredSecret, Owners};
pub(crate) use self::writer::{Freshness, WriteOutcome, Writer};
