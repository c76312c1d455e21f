//! The limits of a directory of manifests.

/// The largest file in bytes; the API server would not accept a larger object either.
pub(crate) const FILE: usize = 1 << 20;
/// The most manifest files in the directory.
pub(crate) const FILES: usize = 4096;
/// The most classes in all files together.
pub(crate) const CLASSES: usize = 10_000;
/// How many broken files, and how many namespaces, a message names.
pub(crate) const LISTED: usize = 5;
