//! Pure. The names that end up in a URL: vault, object, version, tenant.
//!
//! Each can only be built valid, because the Azure SDK puts names into paths as they are; nothing here knows a cloud file
//! or a request. Control goes on to `cloud`, which makes a host of a vault name, and to `vault`, which asks for objects.

use std::fmt;

/// The limits of names.
mod limits {
    /// How long a vault's name may be (docs/reference/azure-provider.md#parameters, keyvaultName).
    pub(super) const VAULT: std::ops::RangeInclusive<usize> = 3..=24;
    /// The longest object name, from Key Vault's naming rule.
    pub(super) const OBJECT: usize = 127;
    /// The length of a version id: 16 bytes in hexadecimal.
    pub(super) const VERSION: usize = 32;
    /// The longest tenant: a DNS name.
    pub(super) const TENANT: usize = 253;
}

/// Why a text is not a name; says what is wrong, the caller adds whose name it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is shorter or longer than the service allows.
    #[error("it has {length} characters; {wanted}")]
    Length {
        /// How long the text is.
        length: usize,
        /// How long it may be, in words.
        wanted: &'static str,
    },
    /// The text holds a character that the service does not allow.
    #[error("it may hold only {0}")]
    Characters(&'static str),
    /// The text is well-formed, but stands for something this version cannot reach.
    #[error("{0}")]
    Unsupported(&'static str),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Takes `text` as such a name.
            ///
            /// # Errors
            /// The first rule that the text breaks, see the type.
            pub fn new(text: &str) -> Result<$name, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok($name(text.to_owned()))
            }

            /// The name as text, in the case it was given in.
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
        length(text, limits::VAULT, "a vault's name has 3 to 24")?;
        characters(text, "-", "ASCII letters, digits and '-'")?;
        // `xn--` starts an encoded international name, which no vault has and which need not be a valid host.
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
        length(text, 1..=limits::OBJECT, "an object's name has 1 to 127")?;
        characters(text, "-", "ASCII letters, digits and '-'")
    }
);

name!(
    /// The id of an object's version: `^[0-9a-fA-F]{32}$` (Key Vault's naming rule).
    ObjectVersionId,
    |text| {
        length(text, limits::VERSION..=limits::VERSION, "a version id has 32")?;
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
        length(text, 1..=limits::TENANT, "a tenant has at most 253")?;
        characters(text, ".-", "ASCII letters, digits, '.' and '-'")?;
        // A tenant of dots alone would climb out of the token endpoint's path.
        if !text.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Err(NameError::Characters("a tenant's id or domain name, not punctuation alone"));
        }
        Ok(())
    }
);

impl TenantId {
    /// Whether this stands for AD FS instead of a tenant.
    pub(super) fn is_adfs(&self) -> bool {
        self.0.eq_ignore_ascii_case("adfs")
    }
}

/// An application's (client) id, which is always a GUID.
///
/// Only a text of that form is ever shown: where somebody swaps client id and client secret in the Kubernetes Secret,
/// the "id" is the secret.
pub(super) fn is_client_id(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn length(text: &str, allowed: std::ops::RangeInclusive<usize>, wanted: &'static str) -> Result<(), NameError> {
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
