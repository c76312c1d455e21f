//! keyvault-csi.
pub mod model;
