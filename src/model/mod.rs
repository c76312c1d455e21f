//! The types that every module uses: classes, pods, callers, fetches, files, payloads, reasons.
//!
//! Pure: no I/O, never async, nothing from tonic, kube or the Azure SDK. Only valid values can be
//! built, so no module checks them again.

mod caller;
mod class;
pub(crate) mod class_spec;
mod fetch;
mod file;
mod names;
mod pod;
mod reason;
mod tokens;

#[cfg(test)]
pub(crate) mod tests;

pub use caller::{Caller, PodInfoError, attribute};
pub use class::{ANNOTATION_PREFIX, Class, ClassRef, INTERVAL_ANNOTATION, REFRESH_ANNOTATION, SHORTEST_INTERVAL};
pub use class_spec::{ClassSpec, SecretObject, SecretObjectData};
pub use fetch::{Fetch, Purpose};
pub(crate) use file::check_names;
pub use file::{
    Conversion, FileMode, FileName, FileNameError, ObjectVersion, Payload, PayloadError, SecretFile, limits,
};
pub use names::{
    InvalidName, Namespace, ResourceName, Uid, annotations_fit, check_annotation, check_label, is_secret_key,
};
pub use pod::{Owner, Pod, PodRef};
pub use reason::Reason;
pub use tokens::{SentTokens, TOKENS, TokensByAudience, TokensError};

/// A secret text: redacted in `Debug`, without `Display`, wiped on drop.
///
/// Only `expose_secret()` gives access, so that grep finds every use of a value.
pub use secrecy::SecretString;

/// Secret bytes, with the same properties as [`SecretString`].
pub type SecretBytes = secrecy::SecretSlice<u8>;

pub use secrecy::ExposeSecret;
