//! Which operation of Key Vault a method and a path name.
//!
//! Parsing never fails: an unknown path is an operation too, so that it is counted, and
//! `keyvault::checks` refuses it later.

use hyper::Method;

use crate::content::ObjectKind;
use crate::permission::Permission;
use crate::record::Kind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VaultOperation {
    /// Secrets for a path without a collection.
    pub(crate) object_kind: ObjectKind,
    pub(crate) verb: Verb,
}

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
    /// Secrets only, like the operations on deleted objects below.
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
    /// Key Vault has this operation, and the emulator does not.
    NotImplemented,
    /// A known collection, with a method or verb that it does not have.
    NotAllowed {
        method: String,
        verb: String,
    },
    /// A path without a known collection.
    Unknown,
}

impl VaultOperation {
    /// Parses a path without its last slash.
    pub(crate) fn parse(method: &Method, segments: &[&str]) -> VaultOperation {
        let method = method.as_str();
        let (object_kind, verb) = match segments {
            ["secrets", rest @ ..] => (ObjectKind::Secret, secret_verb(method, rest)),
            ["deletedsecrets", rest @ ..] => (ObjectKind::Secret, deleted_verb(method, rest)),
            ["keys", rest @ ..] => (ObjectKind::Key, key_verb(method, rest)),
            ["certificates", rest @ ..] => (ObjectKind::Certificate, certificate_verb(method, rest)),
            ["deletedkeys", ..] => (ObjectKind::Key, Verb::NotImplemented),
            ["deletedcertificates", ..] => (ObjectKind::Certificate, Verb::NotImplemented),
            _ => (ObjectKind::Secret, Verb::Unknown),
        };
        VaultOperation { object_kind, verb }
    }

    pub(crate) fn kind(&self) -> Kind {
        let of = |secret, key, certificate| match self.object_kind {
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

    /// The name of the object.
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
    pub(crate) fn permission(&self) -> Option<Permission> {
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

    pub(crate) fn version(&self) -> Option<&str> {
        if let Verb::Get { version, .. } | Verb::Update { version, .. } = &self.verb {
            version.as_deref()
        } else {
            None
        }
    }
}

/// The operations of all three kinds.
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
