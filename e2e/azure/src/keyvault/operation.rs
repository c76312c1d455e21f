//! Which operation a method and a path name.
//!
//! Pure. Parsing never fails: what Key Vault does not know is an operation too, so that it can
//! be counted, and `check` says later what is wrong with it.

use hyper::Method;

use super::errors::KeyVaultError;
use super::names;
use crate::content::ObjectKind;
use crate::record::Kind;
use crate::world::Permission;

/// What is asked of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The kind of objects it is about; secrets where the path says nothing.
    pub(crate) on: ObjectKind,
    pub(crate) verb: Verb,
}

/// What is to be done with an object or with all of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    Get {
        name: String,
        version: Option<String>,
    },
    List,
    ListVersions {
        name: String,
    },
    /// Secrets only.
    Set {
        name: String,
    },
    /// Keys and certificates only.
    Import {
        name: String,
    },
    Update {
        name: String,
        version: Option<String>,
    },
    /// This and what follows on deleted objects are for secrets only.
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
    /// What Key Vault does and this emulator does not.
    NotImplemented,
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
        let method = method.as_str();
        let (on, verb) = match segments {
            ["secrets", rest @ ..] => (ObjectKind::Secret, secret_verb(method, rest)),
            ["deletedsecrets", rest @ ..] => (ObjectKind::Secret, deleted_verb(method, rest)),
            ["keys", rest @ ..] => (ObjectKind::Key, key_verb(method, rest)),
            ["certificates", rest @ ..] => (ObjectKind::Certificate, certificate_verb(method, rest)),
            ["deletedkeys", ..] => (ObjectKind::Key, Verb::NotImplemented),
            ["deletedcertificates", ..] => (ObjectKind::Certificate, Verb::NotImplemented),
            _ => (ObjectKind::Secret, Verb::Unknown),
        };
        Operation { on, verb }
    }

    /// How it is counted.
    pub(crate) fn kind(&self) -> Kind {
        let of = |secret, key, certificate| match self.on {
            ObjectKind::Secret => secret,
            ObjectKind::Key => key,
            ObjectKind::Certificate => certificate,
        };
        match &self.verb {
            Verb::Get { .. } => of(Kind::Get, Kind::KeyGet, Kind::CertificateGet),
            Verb::List => of(Kind::List, Kind::KeyList, Kind::CertificateList),
            Verb::ListVersions { .. } => of(Kind::ListVersions, Kind::KeyListVersions, Kind::CertificateListVersions),
            Verb::Import { .. } => of(Kind::Other, Kind::KeyImport, Kind::CertificateImport),
            Verb::Update { .. } => of(Kind::Update, Kind::KeyUpdate, Kind::CertificateUpdate),
            Verb::Set { .. } => Kind::Set,
            Verb::Delete { .. } => Kind::Delete,
            Verb::GetDeleted { .. } => Kind::GetDeleted,
            Verb::ListDeleted => Kind::ListDeleted,
            Verb::Recover { .. } => Kind::Recover,
            Verb::Purge { .. } => Kind::Purge,
            Verb::NotImplemented | Verb::NotAllowed { .. } | Verb::Unknown => Kind::Other,
        }
    }

    /// The object it is about.
    pub(crate) fn object(&self) -> Option<&str> {
        match &self.verb {
            Verb::Get { name, .. }
            | Verb::ListVersions { name }
            | Verb::Set { name }
            | Verb::Import { name }
            | Verb::Update { name, .. }
            | Verb::Delete { name }
            | Verb::GetDeleted { name }
            | Verb::Recover { name }
            | Verb::Purge { name } => Some(name),
            Verb::List | Verb::ListDeleted | Verb::NotImplemented | Verb::NotAllowed { .. } | Verb::Unknown => None,
        }
    }

    /// The permission it needs; operations that do not exist need none.
    pub(super) fn permission(&self) -> Option<Permission> {
        match &self.verb {
            Verb::Get { .. } | Verb::GetDeleted { .. } => Some(Permission::Get),
            Verb::List | Verb::ListVersions { .. } | Verb::ListDeleted => Some(Permission::List),
            Verb::Set { .. } | Verb::Import { .. } | Verb::Update { .. } => Some(Permission::Set),
            Verb::Delete { .. } => Some(Permission::Delete),
            Verb::Recover { .. } => Some(Permission::Recover),
            Verb::Purge { .. } => Some(Permission::Purge),
            Verb::NotImplemented | Verb::NotAllowed { .. } | Verb::Unknown => None,
        }
    }

    /// Whether the names in it are ones that Key Vault could hold.
    pub(super) fn check(&self) -> Result<(), KeyVaultError> {
        let method = match &self.verb {
            Verb::Get { .. } | Verb::ListVersions { .. } => "GET",
            Verb::Update { .. } => "PATCH",
            Verb::Set { .. } => "PUT",
            Verb::Delete { .. } | Verb::Purge { .. } => "DELETE",
            Verb::Recover { .. } | Verb::Import { .. } => "POST",
            Verb::GetDeleted { .. } | Verb::List | Verb::ListDeleted => "GET",
            Verb::NotImplemented => return Err(KeyVaultError::not_implemented()),
            Verb::NotAllowed { method, verb } => return Err(KeyVaultError::not_allowed(method, verb)),
            Verb::Unknown => return Err(KeyVaultError::no_such_path()),
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
        if let Verb::Get { version, .. } | Verb::Update { version, .. } = &self.verb {
            version.as_deref()
        } else {
            None
        }
    }
}

/// What all three kinds have.
fn common_verb(method: &str, rest: &[&str]) -> Option<Verb> {
    let own = |name: &str| name.to_owned();
    match (method, rest) {
        ("GET", []) => Some(Verb::List),
        ("GET", [name]) => Some(Verb::Get { name: own(name), version: None }),
        ("GET", [name, "versions"]) => Some(Verb::ListVersions { name: own(name) }),
        ("GET", [name, version]) => Some(Verb::Get { name: own(name), version: Some(own(version)) }),
        ("PATCH", [name]) => Some(Verb::Update { name: own(name), version: None }),
        ("PATCH", [name, version]) => Some(Verb::Update { name: own(name), version: Some(own(version)) }),
        (_, _) => None,
    }
}

fn secret_verb(method: &str, rest: &[&str]) -> Verb {
    let own = |name: &str| name.to_owned();
    match (method, rest) {
        ("PUT", [name]) => Verb::Set { name: own(name) },
        ("DELETE", [name]) => Verb::Delete { name: own(name) },
        (method, rest) => common_verb(method, rest).unwrap_or_else(|| not_allowed(method, rest)),
    }
}

fn deleted_verb(method: &str, rest: &[&str]) -> Verb {
    let own = |name: &str| name.to_owned();
    match (method, rest) {
        ("GET", []) => Verb::ListDeleted,
        ("GET", [name]) => Verb::GetDeleted { name: own(name) },
        ("DELETE", [name]) => Verb::Purge { name: own(name) },
        ("POST", [name, "recover"]) => Verb::Recover { name: own(name) },
        (method, rest) => not_allowed(method, rest),
    }
}

fn key_verb(method: &str, rest: &[&str]) -> Verb {
    match (method, rest) {
        ("PUT", [name]) => Verb::Import { name: (*name).to_owned() },
        ("DELETE", [_]) | ("POST", [_, "create" | "backup" | "rotate"]) | ("GET" | "PUT", [_, "rotationpolicy"]) => {
            Verb::NotImplemented
        }
        (method, rest) => common_verb(method, rest).unwrap_or_else(|| not_allowed(method, rest)),
    }
}

fn certificate_verb(method: &str, rest: &[&str]) -> Verb {
    match (method, rest) {
        ("POST", [name, "import"]) => Verb::Import { name: (*name).to_owned() },
        (_, ["contacts" | "issuers", ..])
        | ("DELETE", [_])
        | ("POST", [_, "create" | "backup"])
        | (_, [_, "pending" | "policy"]) => Verb::NotImplemented,
        (method, rest) => common_verb(method, rest).unwrap_or_else(|| not_allowed(method, rest)),
    }
}

fn not_allowed(method: &str, rest: &[&str]) -> Verb {
    Verb::NotAllowed { method: method.to_owned(), verb: rest.last().copied().unwrap_or_default().to_owned() }
}
