//! The service principal in the Secret of a volume's `nodePublishSecretRef`.
//!
//! Pure. Finds client id and secret, or client id and certificate, and names the key that is
//! missing. Does not log in and reads no certificate (`certificate_login` does).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::client_certificate::{CertificateError, CertificateText};
use super::mistake::shown;
use crate::model::{ExposeSecret, Reason, SecretString};

/// A service principal as the pod's Secret has it, untrimmed as in upstream
/// (docs/reference/azure-provider.md#service-principal).
#[derive(Debug)]
pub struct ServicePrincipal {
    /// The application's client id; not empty.
    pub client_id: String,
    /// The proof that logs in.
    pub proof: Proof,
}

/// The proof with which an application logs in.
#[derive(Debug)]
pub enum Proof {
    /// Its secret; not empty.
    Secret(SecretString),
    /// A certificate that is registered with it, and the private key.
    Certificate(CertificateProof),
}

/// A certificate in the pod's Secret that is not parsed yet.
#[derive(Debug)]
pub struct CertificateProof {
    /// The key or the keys of the Secret that hold it.
    pub keys: String,
    /// Their values.
    pub text: Arc<CertificateText>,
}

impl CertificateProof {
    /// The error for a certificate that cannot be used.
    pub fn refused(&self, source: CertificateError) -> CredentialsError {
        CredentialsError::Certificate { keys: self.keys.clone(), source }
    }
}

/// Why the pod's Secret is not a service principal. The texts name keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The volume has no Secret.
    #[error(
        "the class selects the service principal mode (no clientID and no identity flag is set), but the pod's volume has no \
         nodePublishSecretRef: create the Secret with `kubectl create secret generic secrets-store-creds --from-literal \
         clientid=… --from-literal clientsecret=…` in the pod's namespace and name it in nodePublishSecretRef"
    )]
    NoSecret,
    /// The Secret has no such key.
    #[error("the Secret of nodePublishSecretRef has no key {0}: add it, next to {other}", other = counterpart(.0))]
    MissingKey(&'static str),
    /// The key has an empty value.
    #[error("the key {0} in the Secret of nodePublishSecretRef is empty: set it")]
    EmptyValue(String),
    /// Neither a secret nor a certificate.
    #[error(
        "the Secret of nodePublishSecretRef has no key clientsecret and no key clientcertificate: add one of them, next to \
         clientid"
    )]
    NoProof,
    /// Two keys differ only by case, or are two different proofs.
    #[error("the Secret of nodePublishSecretRef has both {first} and {second}, and either could be meant: delete one")]
    Ambiguous {
        /// The first of them, in quotes.
        first: String,
        /// The second of them, in quotes.
        second: String,
    },
    /// The certificate cannot be used.
    #[error("{keys} in the Secret of nodePublishSecretRef {source}")]
    Certificate {
        /// The key or the keys that hold it.
        keys: String,
        /// What is wrong with it.
        source: CertificateError,
    },
}

impl CredentialsError {
    /// The reason of this error. Damaged credentials are rejected, not missing.
    pub fn reason(&self) -> Reason {
        match self {
            CredentialsError::Certificate { source, .. } if source.is_damage() => Reason::CredentialsRejected,
            CredentialsError::NoSecret
            | CredentialsError::MissingKey(_)
            | CredentialsError::EmptyValue(_)
            | CredentialsError::NoProof
            | CredentialsError::Ambiguous { .. }
            | CredentialsError::Certificate { .. } => Reason::CredentialsMissing,
        }
    }
}

const CLIENT_ID: &str = "clientid";
const CLIENT_SECRET: &str = "clientsecret";
/// PEM with certificate and key, or a PKCS#12 archive as base64.
const CERTIFICATE: &str = "clientcertificate";
/// The password of the archive.
const PASSWORD: &str = "clientcertificatepassword";
/// The keys of a Secret of type kubernetes.io/tls, which cert-manager writes.
const TLS: (&str, &str) = ("tls.crt", "tls.key");

/// Finds the service principal in the credentials of a caller
/// (docs/reference/azure-provider.md#service-principal).
///
/// The keys `clientid`, `clientsecret`, `clientcertificate` and `clientcertificatepassword` are
/// found in any case; other keys are ignored. `tls.crt` and `tls.key` are used only without
/// `clientsecret` and `clientcertificate`, since a Secret with a client secret may have them for
/// another purpose.
///
/// # Errors
/// No secrets, a missing or empty one, two keys that differ only by case, or secret and certificate
/// at once. The client id is checked first, a certificate only when it is parsed.
pub fn service_principal(secrets: &BTreeMap<String, SecretString>) -> Result<ServicePrincipal, CredentialsError> {
    if secrets.is_empty() {
        return Err(CredentialsError::NoSecret);
    }
    let client_id = find(secrets, CLIENT_ID)?.ok_or(CredentialsError::MissingKey(CLIENT_ID))?;
    let has = |name: &str| secrets.keys().find(|key| key.eq_ignore_ascii_case(name));
    let proof = match (has(CLIENT_SECRET), has(CERTIFICATE)) {
        (Some(secret), Some(certificate)) => {
            return Err(CredentialsError::Ambiguous { first: shown(secret), second: shown(certificate) });
        }
        (Some(_), None) => {
            let secret = find(secrets, CLIENT_SECRET)?.ok_or(CredentialsError::MissingKey(CLIENT_SECRET))?;
            Proof::Secret(secret.value.clone())
        }
        (None, _) => Proof::Certificate(certificate(secrets)?),
    };
    Ok(ServicePrincipal { client_id: client_id.value.expose_secret().to_owned(), proof })
}

fn certificate(secrets: &BTreeMap<String, SecretString>) -> Result<CertificateProof, CredentialsError> {
    let (certificate, tls) = (find(secrets, CERTIFICATE)?, (find(secrets, TLS.0)?, find(secrets, TLS.1)?));
    match (certificate, tls) {
        (Some(certificate), _) => {
            // An empty password is a password.
            let password = secrets.iter().find(|(key, _)| key.eq_ignore_ascii_case(PASSWORD));
            let password = password.map(|(_, value)| value.clone()).unwrap_or_default();
            let text = Arc::new(CertificateText::any(certificate.value, password));
            Ok(CertificateProof { keys: certificate.key.to_owned(), text })
        }
        (None, (Some(certificate), Some(key))) => {
            let text = Arc::new(CertificateText::pair(certificate.value, key.value));
            Ok(CertificateProof { keys: format!("{} and {}", certificate.key, key.key), text })
        }
        (None, (Some(_), None)) => Err(CredentialsError::MissingKey(TLS.1)),
        (None, (None, Some(_))) => Err(CredentialsError::MissingKey(TLS.0)),
        (None, (None, None)) => Err(CredentialsError::NoProof),
    }
}

/// A key as the Secret spells it, with its value.
struct Found<'a> {
    key: &'a str,
    value: &'a SecretString,
}

/// The value of a key in any case; an empty value is an error.
fn find<'a>(
    secrets: &'a BTreeMap<String, SecretString>,
    name: &'static str,
) -> Result<Option<Found<'a>>, CredentialsError> {
    let mut found = secrets.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    let Some((key, value)) = found.next() else {
        return Ok(None);
    };
    if let Some((other, _)) = found.next() {
        return Err(CredentialsError::Ambiguous { first: shown(key), second: shown(other) });
    }
    if value.expose_secret().is_empty() {
        return Err(CredentialsError::EmptyValue(shown(key)));
    }
    Ok(Some(Found { key, value }))
}

fn counterpart(key: &str) -> &'static str {
    match key {
        CLIENT_ID => CLIENT_SECRET,
        _ if key == TLS.0 => TLS.1,
        _ if key == TLS.1 => TLS.0,
        _ => CLIENT_ID,
    }
}
