//! The users of an API server.

use std::path::PathBuf;

/// A user that the server authenticates from its start on.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// The group, for role bindings.
    pub group: String,
}

/// A user with a kubeconfig.
pub struct User {
    /// The name in the audit log.
    pub name: String,
    /// The kubeconfig, with credentials and address.
    pub kubeconfig: PathBuf,
    pub(crate) port: u16,
}
