//! The names, versions, sizes and API versions that Key Vault accepts.
//!
//! Pure predicates; `keyvault` and `vault` turn a failed one into their errors.

/// The page size of lists, which is also the largest that a client can request.
pub(crate) const PAGE_SIZE: usize = 25;

pub(crate) const MAX_VALUE_BYTES: usize = 25 * 1024;

pub(crate) const MAX_TAGS: usize = 15;

/// The last is the one of Microsoft's newest Python SDK.
pub(crate) const API_VERSIONS: [&str; 5] = ["7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"];

/// `^[0-9a-zA-Z-]{1,127}$`
pub(crate) fn is_object_name(name: &str) -> bool {
    (1..=127).contains(&name.len()) && is_name(name)
}

/// Letters, digits and hyphens, of any length.
pub(crate) fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// 3 to 24 letters, digits and hyphens, beginning with a letter.
pub(crate) fn is_vault_name(name: &str) -> bool {
    (3..=24).contains(&name.len()) && name.starts_with(|first: char| first.is_ascii_alphabetic()) && is_name(name)
}

/// 32 lower-case hexadecimal digits.
pub(crate) fn is_version(version: &str) -> bool {
    version.len() == 32 && version.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
