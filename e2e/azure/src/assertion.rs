//! Signed assertions: reading a JWT, and checking its signature.
//!
//! Pure. It says what is in a token and whether a key has signed it, and knows nothing of clients.
//! `entra::credentials` decides what must be in there; `issuer` makes such tokens for tests.

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
use crate::world::WorldError;

/// The first part of a JWT, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    pub(crate) x5t: Option<String>,
    #[serde(rename = "x5t#S256")]
    pub(crate) x5t_sha256: Option<String>,
}

/// The second part.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    pub(crate) jti: Option<String>,
}

/// One audience, or a list as Kubernetes writes it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A JWT that has the right form, signed by whomever.
#[derive(Debug)]
pub(crate) struct Assertion<'t> {
    pub(crate) header: Header,
    pub(crate) claims: Claims,
    signed: &'t str,
    signature: Vec<u8>,
}

/// A certificate whose key an application signs with.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate {
    sha1: String,
    pub(crate) sha256: String,
    public_key: Vec<u8>,
    /// Unix seconds.
    pub(crate) not_after: i64,
}

impl Assertion<'_> {
    /// Takes a token apart; `None` if it is not a JWT with the claims that all assertions have.
    pub(crate) fn parse(text: &str) -> Option<Assertion<'_>> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Assertion { header: part(header)?, claims: part(claims)?, signed, signature })
    }

    /// Whether this key of an issuer (a P-256 point) has signed it.
    pub(crate) fn is_signed_by_issuer(&self, public_key: &[u8]) -> bool {
        self.header.alg == "ES256" && self.verify(&ECDSA_P256_SHA256_FIXED, public_key)
    }

    /// Whether the key of this certificate has signed it.
    pub(crate) fn is_signed_by(&self, certificate: &ClientCertificate) -> bool {
        match self.header.alg.as_str() {
            "RS256" => self.verify(&RSA_PKCS1_2048_8192_SHA256, &certificate.public_key),
            "PS256" => self.verify(&RSA_PSS_2048_8192_SHA256, &certificate.public_key),
            _ => false,
        }
    }

    /// Whether the header names this certificate, by either thumbprint.
    pub(crate) fn names(&self, certificate: &ClientCertificate) -> bool {
        // Microsoft's own library for Python pads the thumbprint, which a JWT should not.
        match (&self.header.x5t_sha256, &self.header.x5t) {
            (Some(sha256), _) => sha256.trim_end_matches('=') == certificate.sha256,
            (None, Some(sha1)) => sha1.trim_end_matches('=') == certificate.sha1,
            (None, None) => false,
        }
    }

    /// What was signed.
    pub(crate) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The signature over it.
    pub(crate) fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn verify(&self, algorithm: &'static dyn VerificationAlgorithm, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm, public_key).verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

impl Claims {
    /// Whether this is one of the audiences.
    pub(crate) fn is_for(&self, audience: &str) -> bool {
        self.audiences().iter().any(|known| known == audience)
    }

    /// The audiences, for error texts.
    pub(crate) fn audiences(&self) -> &[String] {
        match &self.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        }
    }

    /// Whether it is in force.
    pub(crate) fn is_in_time(&self, now: i64) -> bool {
        now < self.expires() && self.not_before().is_none_or(|not_before| not_before <= now)
    }

    /// When it ends, in Unix seconds.
    pub(crate) fn expires(&self) -> i64 {
        whole(self.exp)
    }

    /// When it begins, in Unix seconds.
    pub(crate) fn not_before(&self) -> Option<i64> {
        self.nbf.map(whole)
    }
}

impl ClientCertificate {
    /// What is needed of a certificate in DER.
    pub(crate) fn read(der: &[u8]) -> Result<ClientCertificate, WorldError> {
        let certificate = parse_certificate(der)?;
        Ok(ClientCertificate {
            sha1: URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, der)),
            sha256: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Times may have fractions: Microsoft's own library for Python writes them so.
fn whole(seconds: f64) -> i64 {
    seconds.floor() as i64
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}
