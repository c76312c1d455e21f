//! Entra ID: instance discovery, OpenID configuration and the token endpoint.
//!
//! The only grant type is client credentials; there are no users. AD FS is the tenant `adfs` of a
//! custom cloud.

mod credentials;
mod discovery;
mod errors;
mod scope;
mod service;
mod token;

pub(crate) use service::{client_of_form, error_response, respond};
