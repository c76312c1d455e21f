//! Authenticates an application by secret, certificate, or the token of a trusted issuer.
//!
//! An assertion that the application itself issued is signed with the key of a registered
//! certificate; any other must be of an issuer that a federated credential names.
//!
//! # Flow
//!
//! Federated credential: issuer, audience, subject, time, signature. Certificate: names, audience,
//! time, thumbprint, signature. The first check that fails gives the error.

use std::collections::BTreeMap;

use super::errors::EntraError;
use crate::assertion::Assertion;
use crate::clouds::Cloud;
use crate::directory::{BINDING_AUDIENCE, Client};
use crate::issuer::Issuer;
use crate::key_set::KeySet;
use crate::request::entra::TokenEndpoint;

/// The only type of assertion.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The issuers whose tokens can be verified, by address.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownIssuers<'a> {
    pub(super) emulated: &'a BTreeMap<String, Issuer>,
    pub(super) external: &'a BTreeMap<String, KeySet>,
}

/// The outcome of verifying a token's signature.
enum Verification {
    UnknownIssuer,
    UnknownKey,
    BadSignature,
    Valid,
}

/// The client and the endpoint of a token request.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenRequest<'a> {
    pub(super) client: &'a Client,
    pub(super) client_id: &'a str,
    pub(super) tenant: &'a str,
    pub(super) cloud: &'a Cloud,
    pub(super) endpoint: TokenEndpoint,
    pub(super) through_proxy: bool,
    pub(super) now: i64,
}

impl TokenRequest<'_> {
    /// Checks the credential in the form.
    pub(super) fn check(self, form: &BTreeMap<String, String>, issuers: KnownIssuers<'_>) -> Result<(), EntraError> {
        let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let Some(text) = field("client_assertion") else {
            let secret = field("client_secret").filter(|_| !self.through_proxy);
            return self.check_secret(secret.ok_or_else(EntraError::no_credential)?);
        };
        match field("client_assertion_type") {
            Some(JWT_BEARER) => {}
            Some(_) => return Err(EntraError::unknown_assertion_type()),
            None => return Err(EntraError::missing_field("client_assertion_type")),
        }
        let assertion = Assertion::parse(text).ok_or_else(|| EntraError::malformed_assertion(None))?;
        if assertion.claims.iss.eq_ignore_ascii_case(self.client_id) && !self.through_proxy {
            self.check_certificate(&assertion)
        } else {
            self.check_federated(&assertion, issuers)
        }
    }

    fn check_secret(self, secret: &str) -> Result<(), EntraError> {
        if self.client.secret.as_deref() != Some(secret) {
            return Err(EntraError::wrong_secret(self.client_id));
        }
        if self.client.expired {
            return Err(EntraError::expired_secret(self.client_id));
        }
        Ok(())
    }

    fn check_federated(self, assertion: &Assertion<'_>, issuers: KnownIssuers<'_>) -> Result<(), EntraError> {
        let claims = &assertion.claims;
        // The proxy accepts identity bindings only, and the direct endpoint all other credentials.
        let all = self.client.federations.iter();
        let here: Vec<_> = all.filter(|known| (known.audience == BINDING_AUDIENCE) == self.through_proxy).collect();
        if here.is_empty() {
            return Err(EntraError::no_federation(self.client_id));
        }
        let of_issuer: Vec<_> = here.into_iter().filter(|known| known.issuer == claims.iss).collect();
        if of_issuer.is_empty() {
            return Err(EntraError::no_matching_issuer(&claims.iss));
        }
        let for_audience: Vec<_> = of_issuer.into_iter().filter(|known| claims.is_for(&known.audience)).collect();
        if for_audience.is_empty() {
            return Err(EntraError::no_matching_audience(&claims.audiences().join(", ")));
        }
        if !for_audience.iter().any(|known| known.subject == claims.sub) {
            return Err(EntraError::no_matching_subject(&claims.sub));
        }
        if !claims.is_in_time(self.now) {
            return Err(EntraError::assertion_out_of_time(self.now, claims.not_before(), claims.expires()));
        }
        match issuers.verify(assertion) {
            Verification::UnknownIssuer => Err(EntraError::issuer_not_reachable(&claims.iss)),
            Verification::UnknownKey => Err(EntraError::unknown_signing_key()),
            Verification::BadSignature => Err(EntraError::bad_federated_signature()),
            Verification::Valid => Ok(()),
        }
    }

    fn check_certificate(self, assertion: &Assertion<'_>) -> Result<(), EntraError> {
        let claims = &assertion.claims;
        if !claims.sub.eq_ignore_ascii_case(self.client_id) {
            return Err(EntraError::assertion_of_another_client());
        }
        if claims.jti.is_none() {
            return Err(EntraError::malformed_assertion(Some("No jti claim.")));
        }
        if !claims.audiences().iter().any(|audience| self.is_token_endpoint(audience)) {
            return Err(EntraError::wrong_assertion_audience(&claims.audiences().join(", ")));
        }
        if !claims.is_in_time(self.now) {
            return Err(EntraError::assertion_out_of_time(self.now, claims.not_before(), claims.expires()));
        }
        let named = assertion.header.x5t_sha256.as_deref().or(assertion.header.x5t.as_deref());
        let thumbprint = named.ok_or_else(|| {
            EntraError::malformed_assertion(Some("No certificate thumbprint specified in token header."))
        })?;
        let certificate = self.client.certificates.iter().find(|known| assertion.names(known));
        let Some(certificate) = certificate else {
            return Err(EntraError::unknown_certificate("The key was not found.", thumbprint, self.client_id));
        };
        if certificate.not_after <= self.now {
            return Err(EntraError::unknown_certificate("The key used is expired.", thumbprint, self.client_id));
        }
        if !assertion.is_signed_by(certificate) {
            return Err(EntraError::bad_certificate_signature());
        }
        Ok(())
    }

    /// Whether this is the URL of the token endpoint, on any login host of the cloud and any port.
    fn is_token_endpoint(self, audience: &str) -> bool {
        let Ok(url) = url::Url::parse(audience) else {
            return false;
        };
        let host = url.host_str().unwrap_or_default();
        let path = url.path().to_ascii_lowercase();
        let tenant = self.tenant;
        let paths = match self.endpoint {
            TokenEndpoint::AdFs | TokenEndpoint::V1 => vec![format!("/{tenant}/oauth2/token")],
            TokenEndpoint::V2 => vec![format!("/{tenant}/oauth2/v2.0/token"), format!("/{tenant}/v2.0")],
        };
        url.scheme() == "https" && self.cloud.login_hosts.iter().any(|known| known == host) && paths.contains(&path)
    }
}

impl KnownIssuers<'_> {
    /// Verifies the signature of a token with the key of its issuer that its header names.
    fn verify(self, assertion: &Assertion<'_>) -> Verification {
        let (known, signed) = if let Some(keys) = self.external.get(&assertion.claims.iss) {
            (keys.has_key_of(assertion), keys.has_signed(assertion))
        } else if let Some(issuer) = self.emulated.get(&assertion.claims.iss) {
            let known = assertion.header.kid.as_deref() == Some(issuer.kid());
            (known, known && assertion.is_signed_by_issuer(issuer.public_key()))
        } else {
            return Verification::UnknownIssuer;
        };
        match (known, signed) {
            (false, _) => Verification::UnknownKey,
            (true, false) => Verification::BadSignature,
            (true, true) => Verification::Valid,
        }
    }
}
