//! Pure. The names that become part of a URL: vault, object, version, tenant.
//!
//! Only valid ones can be constructed, as the Azure SDK puts names into paths unchecked.

use std::fmt;
use std::ops::RangeInclusive;

/// The length of a vault's name (docs/reference/azure-provider.md#parameters, keyvaultName).
const VAULT_LENGTH: RangeInclusive<usize> = 3..=24;
/// The longest object name, from Key Vault's naming rule.
const MAX_OBJECT: usize = 127;
/// The length of a version id: 16 bytes in hexadecimal.
const VERSION_LENGTH: usize = 32;
/// The longest tenant: a DNS name.
const MAX_TENANT: usize = 253;

/// Why a text is not a valid name; the caller adds which name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is shorter or longer than the service allows.
    #[error("it has {length} characters; {wanted}")]
    Length {
        /// The length of the text.
        length: usize,
        /// The allowed length, in words.
        wanted: &'static str,
    },
    /// The text has a character that the service does not allow.
    #[error("it may contain only {0}")]
    Characters(&'static str),
    /// The text is well-formed, but not supported.
    #[error("{0}")]
    Unsupported(&'static str),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// # Errors
            /// The first rule that the text breaks, see the type.
            pub fn new(text: &str) -> Result<$name, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok($name(text.to_owned()))
            }

            /// In the case in which it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a vault: 3 to 24 ASCII letters, digits and hyphens
    /// (docs/reference/azure-provider.md#parameters).
    VaultName,
    |text| {
        length(text, VAULT_LENGTH, "a vault's name has 3 to 24")?;
        characters(text, "-", "ASCII letters, digits and '-'")?;
        // `xn--` starts an encoded international name: no vault has one, and it may not be a valid
        // host.
        if text.len() >= 4 && text.as_bytes()[..4].eq_ignore_ascii_case(b"xn--") {
            return Err(NameError::Unsupported("no vault's name starts with 'xn--'"));
        }
        Ok(())
    }
);

name!(
    /// The name of a secret, key or certificate: `^[0-9A-Za-z-]{1,127}$` (Key Vault's naming rule).
    ObjectName,
    |text| {
        length(text, 1..=MAX_OBJECT, "an object's name has 1 to 127")?;
        characters(text, "-", "ASCII letters, digits and '-'")
    }
);

name!(
    /// The id of an object's version: `^[0-9a-fA-F]{32}$` (Key Vault's naming rule).
    ObjectVersionId,
    |text| {
        length(text, VERSION_LENGTH..=VERSION_LENGTH, "a version id has 32")?;
        match text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(()),
            false => Err(NameError::Characters("hexadecimal digits")),
        }
    }
);

name!(
    /// A tenant of Entra ID, by id or by domain, or `adfs`: ASCII letters, digits, `.` and `-`
    /// (docs/reference/azure-provider.md#parameters).
    TenantId,
    |text| {
        length(text, 1..=MAX_TENANT, "a tenant has at most 253")?;
        characters(text, ".-", "ASCII letters, digits, '.' and '-'")?;
        // A tenant of dots alone would leave the path of the token endpoint.
        if !text.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Err(NameError::Characters("a tenant's id or domain name, not punctuation alone"));
        }
        Ok(())
    }
);

impl TenantId {
    /// Whether this is AD FS instead of a tenant.
    pub(super) fn is_adfs(&self) -> bool {
        self.0.eq_ignore_ascii_case("adfs")
    }
}

/// Whether a text has the form of a client id, which is always a GUID.
///
/// Other texts are never shown: if client id and client secret are swapped in the Kubernetes
/// Secret, the "id" is the secret.
pub(super) fn is_client_id(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn length(text: &str, allowed: RangeInclusive<usize>, wanted: &'static str) -> Result<(), NameError> {
    match text.chars().count() {
        0 => Err(NameError::Empty),
        fits if allowed.contains(&fits) => Ok(()),
        length => Err(NameError::Length { length, wanted }),
    }
}

fn characters(text: &str, also: &str, wanted: &'static str) -> Result<(), NameError> {
    match text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c)) {
        true => Ok(()),
        false => Err(NameError::Characters(wanted)),
    }
}
