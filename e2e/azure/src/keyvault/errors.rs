//! Key Vault's errors: codes, statuses and bodies.
//!
//! The texts are those of the real service as far as they are known, since people search for them.
//! `for_status` is for injected faults, the other constructors are for checks.

use hyper::StatusCode;
use hyper::header::WWW_AUTHENTICATE;
use serde_json::json;

use crate::content::ObjectKind;
use crate::limits;
use crate::object::StoreError;
use crate::response::BufferedResponse;

#[derive(Debug)]
pub(crate) struct KeyVaultError {
    status: StatusCode,
    code: &'static str,
    inner: Option<&'static str>,
    message: String,
    challenge: Option<String>,
}

impl KeyVaultError {
    pub(super) fn unauthorized(message: String, challenge: String) -> KeyVaultError {
        refusal(StatusCode::UNAUTHORIZED, "Unauthorized", message).with_challenge(challenge)
    }

    pub(super) fn forbidden(inner: &'static str, message: String) -> KeyVaultError {
        KeyVaultError { inner: Some(inner), ..refusal(StatusCode::FORBIDDEN, "Forbidden", message) }
    }

    pub(super) fn disabled(operation: &str) -> KeyVaultError {
        let message = format!("Operation {operation} is not allowed on a disabled secret.");
        KeyVaultError::forbidden("SecretDisabled", message)
    }

    pub(super) fn no_api_version() -> KeyVaultError {
        bad_parameter("api-version must be specified".to_owned())
    }

    pub(super) fn unknown_api_version(version: &str) -> KeyVaultError {
        let newest = limits::API_VERSIONS[limits::API_VERSIONS.len() - 1];
        bad_parameter(format!(
            "The specified version ({version}) is not recognized. Consider using the latest \
             supported version ({newest})."
        ))
    }

    pub(super) fn invalid_name(name: &str) -> KeyVaultError {
        bad_parameter(format!("The request URI contains an invalid name: {name}"))
    }

    pub(super) fn not_allowed(method: &str, verb: &str) -> KeyVaultError {
        bad_parameter(format!("Method {method} does not allow operation '{verb}'"))
    }

    pub(super) fn no_such_path() -> KeyVaultError {
        let message = "The requested resource was not found.".to_owned();
        refusal(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// The query or the body is not valid. The message must not quote a value.
    pub(super) fn bad_field(message: &str) -> KeyVaultError {
        bad_parameter(message.to_owned())
    }

    /// Key Vault has the operation, and the emulator does not; the text is ours.
    pub(super) fn not_implemented() -> KeyVaultError {
        let message = "azure-emulator does not do this. Keys and certificates can be imported, read and listed.";
        refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message.to_owned())
    }

    /// An error of the store about `name` or `name/version`.
    pub(super) fn store(kind: ObjectKind, error: StoreError, name: &str) -> KeyVaultError {
        let (noun, capital, not_found) = words(kind);
        match error {
            StoreError::Missing => {
                let message = format!(
                    "A {noun} with (name/id) {name} was not found in this key vault. If you \
                     recently deleted this {noun} you may be able to recover it using the correct \
                     recovery command. For help resolving this issue, please see \
                     https://go.microsoft.com/fwlink/?linkid=2125182"
                );
                refusal(StatusCode::NOT_FOUND, not_found, message)
            }
            StoreError::NotDeleted => {
                let message = format!("Deleted {capital} not found: {name}");
                refusal(StatusCode::NOT_FOUND, not_found, message)
            }
            StoreError::Deleted => {
                let message = format!(
                    "{capital} {name} is currently in a deleted but recoverable state, and its name \
                     cannot be reused; in this state, the {noun} can only be recovered or purged."
                );
                KeyVaultError {
                    inner: Some("ObjectIsDeletedButRecoverable"),
                    ..refusal(StatusCode::CONFLICT, "Conflict", message)
                }
            }
            StoreError::InUse => {
                let message = format!("A {noun} named {name} is in use.");
                refusal(StatusCode::CONFLICT, "Conflict", message)
            }
        }
    }

    /// The error that the service sends with an injected status.
    pub(super) fn for_status(kind: ObjectKind, status: StatusCode) -> KeyVaultError {
        let (noun, _, not_found) = words(kind);
        let missing = format!("A {noun} with this name was not found in this key vault.");
        let (code, message) = match status.as_u16() {
            400 => ("BadParameter", "The request is malformed."),
            401 => ("Unauthorized", "AKV10000: Request is missing a Bearer or PoP token."),
            403 => ("Forbidden", "Access is denied by a fault rule."),
            404 => (not_found, missing.as_str()),
            429 => (
                "Throttled",
                "Request was not processed because too many requests were received. Reason: \
                 VaultRequestTypeLimitReached",
            ),
            503 => ("ServiceUnavailable", "The service is not available right now."),
            _ => ("InternalServerError", "An internal server error has occurred."),
        };
        refusal(status, code, message.to_owned())
    }

    pub(super) fn with_challenge(mut self, challenge: String) -> KeyVaultError {
        self.challenge = Some(challenge);
        self
    }

    pub(super) fn response(&self) -> BufferedResponse {
        let mut inside = json!({ "code": self.code, "message": self.message });
        if let Some(inner) = self.inner {
            inside["innererror"] = json!({ "code": inner });
        }
        let response = BufferedResponse::json(self.status, &json!({ "error": inside }));
        match &self.challenge {
            Some(challenge) => response.header(WWW_AUTHENTICATE, challenge),
            None => response,
        }
    }
}

/// A version in an error text.
pub(super) fn label(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("{name}/{version}"),
        None => name.to_owned(),
    }
}

/// The noun of a kind, the same capitalized, and the code for a missing object.
fn words(kind: ObjectKind) -> (&'static str, &'static str, &'static str) {
    match kind {
        ObjectKind::Secret => ("secret", "Secret", "SecretNotFound"),
        ObjectKind::Key => ("key", "Key", "KeyNotFound"),
        ObjectKind::Certificate => ("certificate", "Certificate", "CertificateNotFound"),
    }
}

fn bad_parameter(message: String) -> KeyVaultError {
    refusal(StatusCode::BAD_REQUEST, "BadParameter", message)
}

fn refusal(status: StatusCode, code: &'static str, message: String) -> KeyVaultError {
    KeyVaultError { status, code, inner: None, message, challenge: None }
}
