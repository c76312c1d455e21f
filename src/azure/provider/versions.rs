//! Chooses the versions of an object that are mounted in history mode
//! (docs/reference/azure-provider.md#versions).
//!
//! Pure; sends no request.

use std::cmp::Reverse;

use super::object::{ObjectSpec, ObjectType, Version};

/// One entry of the vault's list of an object's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// The version.
    pub id: String,
    /// Whether the entry has attributes; one without is not mounted.
    pub has_attributes: bool,
    /// Whether the version is enabled; the vault may omit it for enabled ones.
    pub enabled: Option<bool>,
    /// When it was created, in seconds since 1970; absent counts as 0.
    pub created: Option<i64>,
}

/// Why there is no version to mount. Upstream then mounts nothing, without an error
/// (docs/reference/azure-provider.md#versions).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionsError {
    /// The vault does not list the first version of the history.
    #[error(
        "{object}: objectVersion {version:?} is not among the object's {listed} versions; set objectVersion to one that az \
         keyvault {kind} list-versions shows, or leave it out to begin with the newest"
    )]
    Unknown {
        /// Type and name of the object.
        object: String,
        /// The word for its type in the az program.
        kind: &'static str,
        /// The version of the class.
        version: String,
        /// How many versions there are.
        listed: usize,
    },
    /// The first version of the history is disabled.
    #[error(
        "{object}: objectVersion {version:?} is disabled; enable it, set objectVersion to another one, or leave it out to \
         begin with the newest"
    )]
    Disabled {
        /// Type and name of the object.
        object: String,
        /// The version of the class.
        version: String,
    },
    /// Every version is disabled, or the list is empty.
    #[error("{object}: none of the object's {listed} versions is enabled; enable one, or make a new one")]
    NoneEnabled {
        /// Type and name of the object.
        object: String,
        /// How many versions there are.
        listed: usize,
    },
}

/// The versions to mount, newest first, from the class's version on: at most
/// `objectVersionHistory`.
///
/// Upstream mounts one more than the class asks for (docs/reference/azure-provider.md#versions).
/// Versions of one second are ordered by id. Not-before and expiry dates are ignored.
///
/// # Errors
/// The class's version is unknown or disabled, or none is enabled.
pub fn newest(spec: &ObjectSpec, listed: &[ListedVersion]) -> Result<Vec<String>, VersionsError> {
    let object = || spec.version_id(None);
    let usable = |one: &&ListedVersion| one.has_attributes && one.enabled != Some(false);
    let mut versions: Vec<&ListedVersion> = listed.iter().filter(usable).collect();
    versions.sort_by_key(|one| (Reverse(one.created.unwrap_or_default()), one.id.as_str()));
    let start = match &spec.version {
        Version::Latest if versions.is_empty() => {
            return Err(VersionsError::NoneEnabled { object: object(), listed: listed.len() });
        }
        Version::Latest => 0,
        Version::Pinned(version) => {
            versions.iter().position(|one| one.id == *version).ok_or_else(|| missing(spec, version, listed))?
        }
    };
    let count = usize::try_from(spec.history).unwrap_or_default().max(1);
    Ok(versions.iter().skip(start).take(count).map(|one| one.id.clone()).collect())
}

fn missing(spec: &ObjectSpec, version: &str, listed: &[ListedVersion]) -> VersionsError {
    let object = spec.version_id(None);
    let version = version.to_owned();
    match listed.iter().any(|one| one.id == version) {
        true => VersionsError::Disabled { object, version },
        false => VersionsError::Unknown { object, kind: kind(spec), version, listed: listed.len() },
    }
}

/// The word for an object's type in the az program.
fn kind(spec: &ObjectSpec) -> &'static str {
    match spec.object_type {
        ObjectType::Secret => "secret",
        ObjectType::Key => "key",
        ObjectType::Certificate => "certificate",
    }
}
