//! Azure: what a class asks for (`provider`), and the HTTP protocols of Key Vault, Entra ID and
//! IMDS (`keyvault`).
//!
//! The home of every crate that sends HTTP requests.

pub mod keyvault;
pub mod provider;
