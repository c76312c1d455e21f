//! Credentials that a pod has: the tokens of its service account, as the kubelet sends them.
//!
//! Pure; finds the token of one audience and checks nothing of it. Whether it is the pod's own is looked at in `keyvault`,
//! and whether it is genuine by Entra ID.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::model::{ExposeSecret as _, SecretString};

/// The key of the tokens, among the CSI secrets (Kubernetes 1.35 and newer) or in the volume context.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
const NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";

/// The audience of workload identity (spec/azure-provider.md §5.5).
pub const WORKLOAD_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The audience of AKS identity bindings (spec/azure-provider.md §5.7).
pub const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";

/// A pod's service account with its token for one audience.
#[derive(Debug)]
pub struct ServiceAccount {
    /// The pod's namespace.
    pub namespace: String,
    /// The service account's name.
    pub name: String,
    /// The token.
    pub token: SecretString,
}

/// Why there is no token; the texts say what the CSIDriver object needs, never a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The kubelet sent none.
    #[error(
        "service account tokens not found: add {{audience: {0}}} to spec.tokenRequests of the CSIDriver object \
         secrets-store.csi.k8s.io"
    )]
    NoTokens(&'static str),
    /// What was sent is not the kubelet's JSON.
    #[error(
        "the service account tokens cannot be read: leave csi.storage.k8s.io/serviceAccount.tokens out of volumeAttributes"
    )]
    Unreadable,
    /// There are tokens, but none for the audience.
    #[error(
        "token for audience {0} not found: add it to spec.tokenRequests of the CSIDriver object secrets-store.csi.k8s.io"
    )]
    NoAudience(&'static str),
    /// The kubelet did not say whose pod it is.
    #[error("the pod's namespace or service account is missing: the CSIDriver object must have podInfoOnMount: true")]
    NoPodInfo,
}

/// One token, as the kubelet writes it.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

/// Never shows a token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Takes the token for `audience` from the secrets, else from the volume context (spec/driver.md §2.9).
///
/// A pod's author can write the latter too where the kubelet does not; such a token is of no use, since Entra ID checks who
/// signed it and `keyvault` whose it is.
///
/// # Errors
/// No tokens, none of this audience, or something that is not the kubelet's.
pub fn service_account(
    context: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, SecretString>,
    audience: &'static str,
) -> Result<ServiceAccount, TokenError> {
    let sent = secrets.get(TOKENS).map(|tokens| tokens.expose_secret());
    let text = sent.or_else(|| context.get(TOKENS).map(String::as_str)).filter(|text| !text.trim().is_empty());
    let text = text.ok_or(TokenError::NoTokens(audience))?;
    let mut tokens: BTreeMap<String, Token> = serde_json::from_str(text).map_err(|_| TokenError::Unreadable)?;
    let token = tokens.remove(audience).map(|token| token.token).filter(|token| !token.is_empty());
    let of = |key: &str| context.get(key).filter(|value| !value.is_empty()).cloned().ok_or(TokenError::NoPodInfo);
    Ok(ServiceAccount {
        namespace: of(NAMESPACE)?,
        name: of(SERVICE_ACCOUNT)?,
        token: token.ok_or(TokenError::NoAudience(audience))?.into(),
    })
}
