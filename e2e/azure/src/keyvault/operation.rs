//! Which operation a method and a path name.
//!
//! Pure. Parsing never fails: what Key Vault does not know is an operation too, so that it can
//! be counted, and `check` says later what is wrong with it.

use hyper::Method;

use super::errors::KeyVaultError;
use super::names;
use crate::record::Kind;
use crate::world::Permission;

/// What is asked of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Get {
        name: String,
        version: Option<String>,
    },
    List,
    ListVersions {
        name: String,
    },
    Set {
        name: String,
    },
    Update {
        name: String,
        version: Option<String>,
    },
    Delete {
        name: String,
    },
    GetDeleted {
        name: String,
    },
    ListDeleted,
    Recover {
        name: String,
    },
    Purge {
        name: String,
    },
    /// A path of a known collection with a method or verb that it does not have.
    NotAllowed {
        method: String,
        verb: String,
    },
    /// A path of no collection.
    Unknown,
}

impl Operation {
    /// Reads an operation from a path without its last slash.
    pub(crate) fn parse(method: &Method, segments: &[&str]) -> Operation {
        let own = |name: &str| name.to_owned();
        match (method.as_str(), segments) {
            ("GET", ["secrets"]) => Operation::List,
            ("GET", ["secrets", name]) => Operation::Get { name: own(name), version: None },
            ("PUT", ["secrets", name]) => Operation::Set { name: own(name) },
            ("PATCH", ["secrets", name]) => Operation::Update { name: own(name), version: None },
            ("DELETE", ["secrets", name]) => Operation::Delete { name: own(name) },
            ("GET", ["secrets", name, "versions"]) => Operation::ListVersions { name: own(name) },
            ("GET", ["secrets", name, version]) => Operation::Get { name: own(name), version: Some(own(version)) },
            ("PATCH", ["secrets", name, version]) => Operation::Update { name: own(name), version: Some(own(version)) },
            ("GET", ["deletedsecrets"]) => Operation::ListDeleted,
            ("GET", ["deletedsecrets", name]) => Operation::GetDeleted { name: own(name) },
            ("DELETE", ["deletedsecrets", name]) => Operation::Purge { name: own(name) },
            ("POST", ["deletedsecrets", name, "recover"]) => Operation::Recover { name: own(name) },
            (method, ["secrets" | "deletedsecrets", rest @ ..]) => {
                Operation::NotAllowed { method: own(method), verb: rest.last().copied().unwrap_or_default().to_owned() }
            }
            (_, _) => Operation::Unknown,
        }
    }

    /// How it is counted.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Operation::Get { .. } => Kind::Get,
            Operation::List => Kind::List,
            Operation::ListVersions { .. } => Kind::ListVersions,
            Operation::Set { .. } => Kind::Set,
            Operation::Update { .. } => Kind::Update,
            Operation::Delete { .. } => Kind::Delete,
            Operation::GetDeleted { .. } => Kind::GetDeleted,
            Operation::ListDeleted => Kind::ListDeleted,
            Operation::Recover { .. } => Kind::Recover,
            Operation::Purge { .. } => Kind::Purge,
            Operation::NotAllowed { .. } | Operation::Unknown => Kind::Other,
        }
    }

    /// The object it is about.
    pub(crate) fn object(&self) -> Option<&str> {
        match self {
            Operation::Get { name, .. }
            | Operation::ListVersions { name }
            | Operation::Set { name }
            | Operation::Update { name, .. }
            | Operation::Delete { name }
            | Operation::GetDeleted { name }
            | Operation::Recover { name }
            | Operation::Purge { name } => Some(name),
            Operation::List | Operation::ListDeleted | Operation::NotAllowed { .. } | Operation::Unknown => None,
        }
    }

    /// The permission it needs; operations that do not exist need none.
    pub(super) fn permission(&self) -> Option<Permission> {
        match self {
            Operation::Get { .. } | Operation::GetDeleted { .. } => Some(Permission::Get),
            Operation::List | Operation::ListVersions { .. } | Operation::ListDeleted => Some(Permission::List),
            Operation::Set { .. } | Operation::Update { .. } => Some(Permission::Set),
            Operation::Delete { .. } => Some(Permission::Delete),
            Operation::Recover { .. } => Some(Permission::Recover),
            Operation::Purge { .. } => Some(Permission::Purge),
            Operation::NotAllowed { .. } | Operation::Unknown => None,
        }
    }

    /// Whether the names in it are ones that Key Vault could hold.
    pub(super) fn check(&self) -> Result<(), KeyVaultError> {
        let method = match self {
            Operation::Get { .. } | Operation::ListVersions { .. } => "GET",
            Operation::Update { .. } => "PATCH",
            Operation::Set { .. } => "PUT",
            Operation::Delete { .. } | Operation::Purge { .. } => "DELETE",
            Operation::Recover { .. } => "POST",
            Operation::GetDeleted { .. } | Operation::List | Operation::ListDeleted => "GET",
            Operation::NotAllowed { method, verb } => {
                return Err(KeyVaultError::not_allowed(method, verb));
            }
            Operation::Unknown => return Err(KeyVaultError::no_such_path()),
        };
        if let Some(name) = self.object() {
            if !names::is_name(name) || name.is_empty() {
                return Err(KeyVaultError::invalid_name(name));
            }
            // The real service takes a name that is too long for a verb.
            if !names::is_object_name(name) {
                return Err(KeyVaultError::not_allowed(method, name));
            }
        }
        match self.version() {
            Some(version) if !names::is_version(version) => Err(KeyVaultError::not_allowed(method, version)),
            Some(_) | None => Ok(()),
        }
    }

    fn version(&self) -> Option<&str> {
        if let Operation::Get { version, .. } | Operation::Update { version, .. } = self {
            version.as_deref()
        } else {
            None
        }
    }
}
