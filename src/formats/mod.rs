//! Formats other people defined: text in, values or bytes out.
//!
//! Pure, and knows neither vaults nor classes nor files; nothing here imports another module of ours.
//! Control goes back to `provider` and `classes`, which know what a value means.

pub mod certificate;
pub mod chain;
pub mod duration;
pub mod encoding;
pub mod jwk;
pub mod jwt;
pub mod keyed_digest;
pub mod pem;
pub mod pkcs12;
pub mod private_key;
pub mod yaml;

#[cfg(test)]
pub(crate) mod tests;
