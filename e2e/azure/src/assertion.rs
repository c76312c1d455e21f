//! Signed assertions: parses a JWT and verifies its signature.
//!
//! Pure. `entra::credentials` decides which claims are required; `issuer` makes such tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::content::parse_certificate;
use crate::error::SetupError;

/// Azure allows clocks to differ by five minutes. MSAL for Node.js rounds the current time up.
const CLOCK_SKEW: i64 = 300;

/// The header of a JWT.
#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    pub(crate) x5t: Option<String>,
    #[serde(rename = "x5t#S256")]
    pub(crate) x5t_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    pub(crate) jti: Option<String>,
}

/// One audience, or a list as Kubernetes issues it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A well-formed JWT whose signature is not verified yet.
#[derive(Debug)]
pub(crate) struct Assertion<'t> {
    pub(crate) header: Header,
    pub(crate) claims: Claims,
    signed: &'t str,
    signature: Vec<u8>,
}

/// A registered certificate of an application.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate {
    sha1: String,
    pub(crate) sha256: String,
    public_key: Vec<u8>,
    /// Unix seconds.
    pub(crate) not_after: i64,
}

impl Assertion<'_> {
    /// `None` if the text is not a JWT with the claims of every assertion.
    pub(crate) fn parse(text: &str) -> Option<Assertion<'_>> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Assertion { header: part(header)?, claims: part(claims)?, signed, signature })
    }

    /// Whether the key of an issuer, a P-256 point, signed it.
    pub(crate) fn is_signed_by_issuer(&self, public_key: &[u8]) -> bool {
        self.header.alg == "ES256" && self.verify(&ECDSA_P256_SHA256_FIXED, public_key)
    }

    /// Whether the key of this certificate signed it.
    pub(crate) fn is_signed_by(&self, certificate: &ClientCertificate) -> bool {
        match self.header.alg.as_str() {
            "RS256" => self.verify(&RSA_PKCS1_2048_8192_SHA256, &certificate.public_key),
            "PS256" => self.verify(&RSA_PSS_2048_8192_SHA256, &certificate.public_key),
            _ => false,
        }
    }

    /// Whether the header has a thumbprint of this certificate.
    pub(crate) fn names(&self, certificate: &ClientCertificate) -> bool {
        match (&self.header.x5t_sha256, &self.header.x5t) {
            (Some(sha256), _) => base64url(sha256) == certificate.sha256,
            (None, Some(sha1)) => base64url(sha1) == certificate.sha1,
            (None, None) => false,
        }
    }

    /// The part that is signed.
    pub(crate) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn verify(&self, algorithm: &'static dyn VerificationAlgorithm, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm, public_key).verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

impl Claims {
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        self.audiences().iter().any(|known| known == audience)
    }

    pub(crate) fn audiences(&self) -> &[String] {
        match &self.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        }
    }

    /// Exact at the end, so that a test need not wait for it.
    pub(crate) fn is_in_time(&self, now: i64) -> bool {
        let begun = |not_before| not_before <= now.saturating_add(CLOCK_SKEW);
        now < self.expires() && self.not_before().is_none_or(begun)
    }

    /// Unix seconds.
    pub(crate) fn expires(&self) -> i64 {
        whole(self.exp)
    }

    /// Unix seconds.
    pub(crate) fn not_before(&self) -> Option<i64> {
        self.nbf.map(whole)
    }
}

impl ClientCertificate {
    /// Parses DER.
    pub(crate) fn read(der: &[u8]) -> Result<ClientCertificate, SetupError> {
        let certificate = parse_certificate(der)?;
        Ok(ClientCertificate {
            sha1: URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, der)),
            sha256: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Against RFC 7515, MSAL for Python pads a thumbprint, and MSAL for Go also uses the alphabet of
/// plain base64. Entra ID and AD FS take both.
fn base64url(thumbprint: &str) -> String {
    thumbprint.trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// Times may have fractions, as MSAL for Python sends them.
fn whole(seconds: f64) -> i64 {
    seconds.floor() as i64
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_found_in_both_alphabets_padded_or_not() {
        let certificate = ClientCertificate {
            sha1: "6HsDJ-BtbfYEINh97fIQpEXHbP_".to_owned(),
            sha256: "a-b_".to_owned(),
            public_key: Vec::new(),
            not_after: 0,
        };
        let named = |x5t: &str, value: &str| {
            let part = |document: serde_json::Value| URL_SAFE_NO_PAD.encode(document.to_string());
            let header = part(serde_json::json!({ "alg": "RS256", x5t: value }));
            let claims = part(serde_json::json!({ "iss": "", "sub": "", "aud": "", "exp": 0 }));
            let token = format!("{header}.{claims}.");
            Assertion::parse(&token).unwrap().names(&certificate)
        };
        for sha1 in ["6HsDJ-BtbfYEINh97fIQpEXHbP_", "6HsDJ-BtbfYEINh97fIQpEXHbP_=", "6HsDJ+BtbfYEINh97fIQpEXHbP/="] {
            assert!(named("x5t", sha1), "{sha1}");
        }
        assert!(named("x5t#S256", "a+b/") && named("x5t#S256", "a-b_=="));
        assert!(!named("x5t", "6HsDJ-BtbfYEINh97fIQpEXHbP-") && !named("x5t#S256", "a-b-"));
    }
}
