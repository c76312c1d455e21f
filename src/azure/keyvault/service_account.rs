//! Pure. The token of a pod's service account, of which the subject is checked before any cache is
//! used with it.
//!
//! Verifies no signature: Entra ID does. But objects in a cache are returned without asking Entra
//! ID, so a token with another subject than the pod's never becomes a [`ServiceAccountToken`], and
//! without one no vault is opened.

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

/// Why a text is not the pod's token. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is not a JWT.
    #[error("is not a well-formed JWT: {0}")]
    Malformed(#[from] Malformed),
    /// Its subject is another one.
    #[error("is that of another service account than the pod's")]
    OtherSubject,
}

impl ServiceAccountToken {
    /// A token of the service account `namespace`/`name`, requested for this audience.
    ///
    /// # Errors
    /// It is not a JWT, or its `sub` is not `system:serviceaccount:<namespace>:<name>`.
    pub fn new(namespace: &str, name: &str, audience: &str, token: SecretString) -> Result<Self, TokenFault> {
        let claims = Claims::read(token.expose_secret())?;
        // Neither part may contain a colon, or two accounts could have one subject.
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

    /// The JWT.
    pub fn token(&self) -> &SecretString {
        &self.token
    }

    /// Its expiration, in seconds since 1970, if it has one.
    pub(super) fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// Whether it may use caches that other tokens of its service account filled, at `now` in
    /// seconds since 1970.
    ///
    /// Not if it has expired, has no expiration, or is for another audience: Entra ID has to check
    /// it. It is not refused here, as the node's clock may be wrong.
    pub(super) fn may_share(&self, now: i64) -> bool {
        self.is_for_audience && self.expires.is_some_and(|expires| expires > now)
    }
}

/// Without the token.
impl fmt::Debug for ServiceAccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccountToken({}/{})", self.namespace, self.name)
    }
}
