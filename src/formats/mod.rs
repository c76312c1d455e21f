//! Formats other people defined: text in, values or bytes out.
//!
//! Pure, and knows neither vaults nor classes nor files; nothing here imports another module of ours.
//! Control goes back to `provider` and `classes`, which know what a value means.

pub mod encoding;
pub mod yaml;

#[cfg(test)]
mod tests;
