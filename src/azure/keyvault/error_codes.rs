//! Pure. The error codes in the body of a refusal.
//!
//! A body goes no further than this file: only words with the form of a code leave it, since the
//! rest may quote a secret.

use serde_json::Value;

/// The longest code or id that is shown.
pub(super) const MAX_LENGTH: usize = 64;

/// Codes of Entra ID for a tenant that it does not know.
const UNKNOWN_TENANT: [&str; 5] = ["AADSTS90002", "AADSTS900023", "AADSTS900021", "AADSTS900382", "AADSTS90038"];

/// Codes of Key Vault for a disabled object or version.
const DISABLED: [&str; 3] = ["SecretDisabled", "KeyDisabled", "CertificateDisabled"];

/// Each matches `^[A-Za-z0-9]{1,64}$`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ErrorCodes {
    /// Key Vault's code, or Entra ID's `AADSTS` with its number.
    pub(super) code: Option<String>,
    /// Key Vault's inner code, which is more precise.
    pub(super) inner: Option<String>,
}

impl ErrorCodes {
    /// Reads Key Vault's `{"error":{"code","message","innererror":{"code"}}}`; fields may be
    /// missing.
    pub(super) fn of_key_vault(body: &[u8]) -> ErrorCodes {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        ErrorCodes {
            code: error["code"].as_str().and_then(code),
            inner: error["innererror"]["code"].as_str().and_then(code),
        }
    }

    /// Reads Entra ID's `{"error","error_description","error_codes"}`; of the description only the
    /// `AADSTS` number.
    pub(super) fn of_entra_id(body: &[u8]) -> ErrorCodes {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let listed = body["error_codes"][0].as_u64().map(|number| format!("AADSTS{number}"));
        let described = || {
            let text = body["error_description"].as_str()?;
            let word = code(text.split(|c: char| !c.is_ascii_alphanumeric()).next()?)?;
            // AD FS has numbers of its own.
            let number = word.strip_prefix("AADSTS").or_else(|| word.strip_prefix("MSIS"))?;
            number.bytes().all(|byte| byte.is_ascii_digit()).then_some(word)
        };
        ErrorCodes { code: listed.or_else(described), inner: None }
    }

    pub(super) fn has(&self, wanted: &str) -> bool {
        self.all().any(|code| code.eq_ignore_ascii_case(wanted))
    }

    /// The general code first.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.code.iter().chain(&self.inner).map(String::as_str)
    }

    pub(super) fn is_unknown_tenant(&self) -> bool {
        UNKNOWN_TENANT.iter().any(|code| self.has(code))
    }

    pub(super) fn is_disabled(&self) -> bool {
        DISABLED.iter().any(|code| self.has(code))
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.all().any(|code| code.ends_with("NotFound"))
    }
}

fn code(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain && (1..=MAX_LENGTH).contains(&text.len())).then(|| text.to_owned())
}
