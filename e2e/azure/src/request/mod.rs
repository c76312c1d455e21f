//! Requests as values: where one arrived, which service and operation it names, and what it
//! carries.
//!
//! Pure. Nothing here looks up a tenant, a vault or a token.

pub(crate) mod endpoint;
pub(crate) mod entra;
pub(crate) mod imds;
pub(crate) mod keyvault;
pub(crate) mod parsed;
