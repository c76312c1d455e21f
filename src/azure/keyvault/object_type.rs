//! Pure. The types of objects in a vault, and how Key Vault's REST API names them.

/// The version of the REST API: upstream's, which the sovereign clouds have, too
/// (docs/reference/azure-provider.md#http).
pub(super) const API_VERSION: &str = "7.4";

/// The type of an object; a vault has a challenge for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// Secrets.
    Secret,
    /// Keys; a vault returns only their public half.
    Key,
    /// Certificates, without their private keys.
    Certificate,
}

impl ObjectType {
    /// As in classes and metrics (docs/reference/azure-provider.md#object-fields).
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ObjectType::Secret => "secret",
            ObjectType::Key => "key",
            ObjectType::Certificate => "cert",
        }
    }

    /// The first component of its paths.
    pub(super) fn collection(self) -> &'static str {
        match self {
            ObjectType::Secret => "secrets",
            ObjectType::Key => "keys",
            ObjectType::Certificate => "certificates",
        }
    }
}
