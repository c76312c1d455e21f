//! Credentials that a pod has: the tokens of its service account, as the kubelet sends them.
//!
//! Pure. Finds the token of one audience, and refuses one that is not the pod's own, or a call that speaks of another pod. Whether a
//! token is genuine is Entra ID's to say.

use crate::azure::keyvault::{ServiceAccountToken, TokenFault};
use crate::model::{Caller, PodRef, TOKENS, TokensError};

/// The audience of workload identity (docs/reference/azure-provider.md#token-audiences).
pub const WORKLOAD_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The audience of AKS identity bindings (docs/reference/azure-provider.md#identity-binding).
pub const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";

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
        "the service account tokens cannot be read: leave {key} out of volumeAttributes",
        key = TOKENS
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
    /// There is a token, but not of the pod.
    #[error(
        "the service account token for audience {audience} {fault}: leave {key} out of \
         volumeAttributes; the CSIDriver object secrets-store.csi.k8s.io must have podInfoOnMount: true and {{audience: {audience}}} \
         in spec.tokenRequests",
        key = TOKENS
    )]
    NotOwn {
        /// The audience that it was sent for.
        audience: &'static str,
        /// What is wrong with it.
        fault: TokenFault,
    },
}

/// The volume context is not of the pod in whose directory the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "csi.storage.k8s.io/pod.uid in the volume context is not the pod's UID in the target path: the CSIDriver object of this driver must \
     have podInfoOnMount: true, so that the kubelet says whose pod it is"
)]
pub struct OtherPod;

/// Why tokens of a call are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallFault {
    /// Nothing in its context is to be believed.
    #[error(transparent)]
    OtherPod(#[from] OtherPod),
    /// One of them is not the pod's.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Checks that the volume context is of the pod in whose directory the volume is.
///
/// A pod's author can write what the kubelet does not, but cannot know the UID that the pod will have.
///
/// # Errors
/// The target path names a pod by its UID, and the context names another one or none.
pub fn check_pod(caller: &Caller, target: &str) -> Result<(), OtherPod> {
    match PodRef::uid_in(target) {
        Some(uid) if caller.pod.uid != uid => Err(OtherPod),
        Some(_) | None => Ok(()),
    }
}

/// Looks for what keeps this provider from using the tokens of a call, whichever identity a class chooses.
pub fn fault_of(caller: &Caller, target: &str) -> Option<CallFault> {
    if let Err(fault) = check_pod(caller, target) {
        return Some(fault.into());
    }
    [WORKLOAD_AUDIENCE, BINDING_AUDIENCE].into_iter().find_map(|audience| match service_account(caller, audience) {
        Ok(_) | Err(TokenError::NoTokens(_) | TokenError::NoAudience(_)) => None,
        Err(fault @ (TokenError::Unreadable | TokenError::NoPodInfo | TokenError::NotOwn { .. })) => Some(fault.into()),
    })
}

/// Takes the token for `audience` from the secrets, else from the volume context
/// (docs/reference/csi-driver.md#service-account-tokens).
///
/// A pod's author can write the latter too where the kubelet does not; such a token is of no use unless it names the pod's own
/// service account, and then only if Entra ID finds it genuine, or has just done so for another one of that account.
///
/// # Errors
/// No tokens, none of this audience, or something that is not the kubelet's.
pub fn service_account(caller: &Caller, audience: &'static str) -> Result<ServiceAccountToken, TokenError> {
    let tokens = caller.tokens().map_err(|error| match error {
        TokensError::NotSent => TokenError::NoTokens(audience),
        TokensError::Unreadable => TokenError::Unreadable,
    })?;
    let name = caller.service_account.as_ref().ok_or(TokenError::NoPodInfo)?;
    let token = tokens.get(audience).ok_or(TokenError::NoAudience(audience))?;
    ServiceAccountToken::new(&caller.pod.namespace, name, audience, token.clone())
        .map_err(|fault| TokenError::NotOwn { audience, fault })
}
