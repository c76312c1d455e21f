//! The token of a pod's service account, checked for whose it is before anything is looked up with it.
//!
//! Pure. Believes no signature: that is Entra ID's part. But what lies in memory for a service account is given out without asking
//! Entra ID, so a token that does not name the pod's own never becomes a [`ServiceAccountToken`], and without one no vault is opened.

use std::fmt;

use crate::formats::jwt::{Claims, Malformed};
use crate::model::{ExposeSecret as _, SecretString};

/// A well-formed token whose subject is the pod's service account.
#[derive(Clone)]
pub struct ServiceAccountToken {
    namespace: String,
    name: String,
    token: SecretString,
    expires: Option<i64>,
    is_for_audience: bool,
}

/// Why a text is not the pod's token. Never a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is no token at all.
    #[error("is not a well-formed JWT: {0}")]
    Malformed(#[from] Malformed),
    /// Its subject is somebody else.
    #[error("is that of another service account than the pod's")]
    OtherSubject,
}

impl ServiceAccountToken {
    /// Takes a token of the service account `namespace`/`name`, which was asked for with this audience.
    ///
    /// # Errors
    /// It is not a JWT, or its `sub` is not `system:serviceaccount:<namespace>:<name>`.
    pub fn new(namespace: &str, name: &str, audience: &str, token: SecretString) -> Result<Self, TokenFault> {
        let claims = Claims::read(token.expose_secret())?;
        // Neither part may hold a colon, or two accounts would have one subject.
        let own = !namespace.contains(':') && !name.contains(':');
        if !own || claims.subject != format!("system:serviceaccount:{namespace}:{name}") {
            return Err(TokenFault::OtherSubject);
        }
        let is_for_audience = claims.audiences.is_none_or(|audiences| audiences.iter().any(|found| found == audience));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(ServiceAccountToken { namespace, name, token, expires: claims.expires, is_for_audience })
    }

    /// The namespace of the service account.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the service account.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The token itself.
    pub fn token(&self) -> &SecretString {
        &self.token
    }

    /// When it expires, in seconds since 1970, if it says so.
    pub(super) fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// Whether it may be answered from what others of its service account got, at `now` in seconds since 1970.
    ///
    /// One that has expired, does not say when it does, or is for another audience may not: Entra ID has to judge it. It is not refused
    /// here, since the node's clock may be wrong.
    pub(super) fn may_share(&self, now: i64) -> bool {
        self.is_for_audience && self.expires.is_some_and(|expires| expires > now)
    }
}

/// Shows whose it is, and no token.
impl fmt::Debug for ServiceAccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccountToken({}/{})", self.namespace, self.name)
    }
}
