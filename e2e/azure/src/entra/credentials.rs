//! How an application proves who it is: secret, certificate, or the token of a trusted issuer.
//!
//! Decides only; the form was parsed before, and the token is made after.
//! An assertion that the application issued itself is signed with a registered certificate's key; any
//! other must come from an issuer that a federated credential names.
//!
//! # Flow
//!
//! Federated: issuer, audience, subject, time, signature. Certificate: names, audience, time,
//! thumbprint, signature. The first that fails gives the error.

use std::collections::BTreeMap;

use super::errors::EntraError;
use crate::assertion::Assertion;
use crate::clouds::Cloud;
use crate::directory::Client;
use crate::issuer::Issuer;
use crate::key_set::KeySet;

/// The audience of tokens that only a token proxy takes.
pub(crate) const BINDING_AUDIENCE: &str = "api://AKSIdentityBinding";

/// The only type of assertion there is.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Whose tokens can be checked, by address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issuers<'a> {
    pub(super) ours: &'a BTreeMap<String, Issuer>,
    pub(super) others: &'a BTreeMap<String, KeySet>,
}

/// Who wants a token, and where the request arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applicant<'a> {
    pub(super) client: &'a Client,
    pub(super) client_id: &'a str,
    pub(super) tenant: &'a str,
    pub(super) cloud: &'a Cloud,
    pub(super) through_proxy: bool,
    pub(super) now: i64,
}

impl Applicant<'_> {
    /// Checks the credential in a token request.
    pub(super) fn check(self, form: &BTreeMap<String, String>, issuers: Issuers<'_>) -> Result<(), EntraError> {
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

    fn check_federated(self, assertion: &Assertion<'_>, issuers: Issuers<'_>) -> Result<(), EntraError> {
        let claims = &assertion.claims;
        // A binding is known to the proxy only, and the proxy knows nothing else.
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
        let (known, signed) = issuers.judge(assertion).ok_or_else(|| EntraError::issuer_not_reachable(&claims.iss))?;
        match (known, signed) {
            (false, _) => Err(EntraError::unknown_signing_key()),
            (true, false) => Err(EntraError::bad_federated_signature()),
            (true, true) => Ok(()),
        }
    }

    fn check_certificate(self, assertion: &Assertion<'_>) -> Result<(), EntraError> {
        let claims = &assertion.claims;
        if !claims.sub.eq_ignore_ascii_case(self.client_id) {
            return Err(EntraError::assertion_of_another());
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

    /// Whether this is the address of the token endpoint, under any login host of the cloud and any port.
    fn is_token_endpoint(self, audience: &str) -> bool {
        let Ok(url) = url::Url::parse(audience) else {
            return false;
        };
        let host = url.host_str().unwrap_or_default();
        let path = url.path().to_ascii_lowercase();
        let tenant = self.tenant;
        let paths = match tenant {
            super::ADFS => vec![format!("/{tenant}/oauth2/token")],
            _ => vec![format!("/{tenant}/oauth2/v2.0/token"), format!("/{tenant}/v2.0")],
        };
        url.scheme() == "https" && self.cloud.login_hosts.iter().any(|known| known == host) && paths.contains(&path)
    }
}

impl Issuers<'_> {
    /// Whether the issuer has the key that the token names, and whether that has signed it; `None` if nobody knows it.
    fn judge(self, assertion: &Assertion<'_>) -> Option<(bool, bool)> {
        if let Some(keys) = self.others.get(&assertion.claims.iss) {
            return Some((keys.has_key_of(assertion), keys.has_signed(assertion)));
        }
        let issuer = self.ours.get(&assertion.claims.iss)?;
        let known = assertion.header.kid.as_deref() == Some(issuer.kid());
        Some((known, known && assertion.is_signed_by_issuer(issuer.public_key())))
    }
}
