//! The token of a pod's service account for one audience.
//!
//! Pure. Refuses a token that does not name the pod's own service account, and a call with the
//! attributes of another pod. Whether a token is genuine is decided by Entra ID.

use crate::azure::keyvault::{ServiceAccountToken, TokenFault};
use crate::model::{Caller, PodRef, TOKENS, TokensError};

/// The audience of workload identity (docs/reference/azure-provider.md#token-audiences).
pub const WORKLOAD_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The audience of AKS identity bindings (docs/reference/azure-provider.md#identity-binding).
pub const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";

/// Why there is no token. The texts name what the CSIDriver object needs, never a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The kubelet sent no tokens.
    #[error(
        "service account tokens not found: add {{audience: {0}}} to spec.tokenRequests of the CSIDriver object \
         secrets-store.csi.k8s.io"
    )]
    NoTokens(&'static str),
    /// The text is not the kubelet's JSON.
    #[error(
        "the service account tokens cannot be read: leave {key} out of volumeAttributes",
        key = TOKENS
    )]
    Unreadable,
    /// The tokens have other audiences.
    #[error(
        "token for audience {0} not found: add it to spec.tokenRequests of the CSIDriver object secrets-store.csi.k8s.io"
    )]
    NoAudience(&'static str),
    /// The call does not name the pod's service account.
    #[error("the pod's namespace or service account is missing: the CSIDriver object must have podInfoOnMount: true")]
    NoPodInfo,
    /// The token is not the pod's.
    #[error(
        "the service account token for audience {audience} {fault}: leave {key} out of \
         volumeAttributes; the CSIDriver object secrets-store.csi.k8s.io must have podInfoOnMount: true and {{audience: {audience}}} \
         in spec.tokenRequests",
        key = TOKENS
    )]
    NotOwn {
        /// The audience.
        audience: &'static str,
        /// What is wrong with it.
        fault: TokenFault,
    },
}

/// The attributes are not of the pod in whose directory the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "csi.storage.k8s.io/pod.uid in the volume context is not the pod's UID in the target path: the CSIDriver object of this driver must \
     have podInfoOnMount: true, so that the kubelet says whose pod it is"
)]
pub struct OtherPod;

/// Why a call's tokens are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallerFault {
    /// No attribute of the call can be trusted.
    #[error(transparent)]
    OtherPod(#[from] OtherPod),
    /// A token is not the pod's, or they cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Checks that the attributes are of the pod in whose directory the volume is.
///
/// A pod's author can write attributes that the kubelet does not, but cannot know the UID that the
/// pod will have.
///
/// # Errors
/// The target path names a pod by its UID, and the attributes name another one or none.
pub fn check_pod(caller: &Caller, target: &str) -> Result<(), OtherPod> {
    match PodRef::uid_in(target) {
        Some(uid) if caller.pod.uid != uid => Err(OtherPod),
        Some(_) | None => Ok(()),
    }
}

/// Why this provider would refuse the tokens of a call, whichever identity a class chooses.
pub fn fault_of(caller: &Caller, target: &str) -> Option<CallerFault> {
    if let Err(fault) = check_pod(caller, target) {
        return Some(fault.into());
    }
    [WORKLOAD_AUDIENCE, BINDING_AUDIENCE].into_iter().find_map(|audience| match service_account(caller, audience) {
        Ok(_) | Err(TokenError::NoTokens(_) | TokenError::NoAudience(_)) => None,
        Err(fault @ (TokenError::Unreadable | TokenError::NoPodInfo | TokenError::NotOwn { .. })) => Some(fault.into()),
    })
}

/// The token for `audience`, from the secrets or else from the volume context
/// (docs/reference/csi-driver.md#service-account-tokens).
///
/// A pod's author can write the latter if the kubelet does not. Such a token is refused unless it
/// names the pod's own service account; then Entra ID decides whether it is genuine, or has just
/// done so for another token of that account.
///
/// # Errors
/// No tokens, none of this audience, or one that is not the pod's.
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
