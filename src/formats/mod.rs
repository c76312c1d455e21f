//! Standard formats and encodings: text or bytes in, values or bytes out.
//!
//! Pure, and imports no other module of this crate. Vaults, classes and files, and with them the
//! meaning of a value, belong to the callers.

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
