//! Credentials that a pod brings: the service principal in the Secret of `nodePublishSecretRef`.
//!
//! Pure; takes the pair out of the map and says what is missing, but does not log in and does not check it.
//! Control goes on to `keyvault`, which logs in.

use std::collections::BTreeMap;

use super::mistake::shown;
use crate::model::{ExposeSecret, SecretString};

/// A service principal as the pod's Secret has it; neither part is trimmed, as upstream does not (§5.3).
#[derive(Debug)]
pub struct ServicePrincipal {
    /// The application's client id; not empty.
    pub client_id: String,
    /// The application's secret; not empty.
    pub client_secret: SecretString,
}

/// Why the pod's Secret is no service principal; the texts name keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// There is no Secret at all.
    #[error(
        "the class selects the service principal mode (no clientID and no identity flag is set), but the pod's volume has no \
         nodePublishSecretRef: create the Secret with `kubectl create secret generic secrets-store-creds --from-literal \
         clientid=… --from-literal clientsecret=…` in the pod's namespace and name it in nodePublishSecretRef"
    )]
    NoSecret,
    /// The Secret has no such key.
    #[error("the Secret of nodePublishSecretRef has no key {0}: add it, next to {other}", other = partner(.0))]
    MissingKey(&'static str),
    /// The key is there without a value.
    #[error("the key {0} in the Secret of nodePublishSecretRef is empty: set it")]
    EmptyValue(String),
    /// Two keys differ only by case.
    #[error("the Secret of nodePublishSecretRef has both {first} and {second}, and either could be meant: delete one")]
    Ambiguous {
        /// The first of them, in quotes.
        first: String,
        /// The second of them, in quotes.
        second: String,
    },
}

const CLIENT_ID: &str = "clientid";
const CLIENT_SECRET: &str = "clientsecret";

/// The key under which the kubelet puts service account tokens among the secrets; says nothing about a service principal.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Takes the service principal out of the secrets of a publish call (spec/azure-provider.md §5.3).
///
/// The keys `clientid` and `clientsecret` are found in any case; other keys are ignored.
///
/// # Errors
/// No secrets, a missing or empty one, or two keys that differ only by case. The client id is looked at first.
pub fn service_principal(secrets: &BTreeMap<String, SecretString>) -> Result<ServicePrincipal, CredentialsError> {
    if secrets.keys().all(|key| key == TOKENS) {
        return Err(CredentialsError::NoSecret);
    }
    let client_id = find(secrets, CLIENT_ID)?.expose_secret().to_owned();
    let client_secret = find(secrets, CLIENT_SECRET)?.clone();
    Ok(ServicePrincipal { client_id, client_secret })
}

fn find<'a>(
    secrets: &'a BTreeMap<String, SecretString>,
    wanted: &'static str,
) -> Result<&'a SecretString, CredentialsError> {
    let mut found = secrets.iter().filter(|(key, _)| key.eq_ignore_ascii_case(wanted));
    let Some((key, value)) = found.next() else {
        return Err(CredentialsError::MissingKey(wanted));
    };
    if let Some((other, _)) = found.next() {
        return Err(CredentialsError::Ambiguous { first: shown(key), second: shown(other) });
    }
    if value.expose_secret().is_empty() {
        return Err(CredentialsError::EmptyValue(shown(key)));
    }
    Ok(value)
}

fn partner(key: &str) -> &'static str {
    if key == CLIENT_ID { CLIENT_SECRET } else { CLIENT_ID }
}
