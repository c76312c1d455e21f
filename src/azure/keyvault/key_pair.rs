//! The certificate of an application and its private key, which signs assertions.
//!
//! The key is in memory only while a token is requested: a cached [`LoginCertificate`] has the
//! public part, and a way to read the key again. Whether Entra ID accepts the certificate shows in
//! `session`.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use crate::compute::{self, Compute};
use crate::formats::certificate::ParsedCertificate;
use crate::formats::pkcs12::Work;
use crate::model::SecretString;
use tokio::time::Instant;

/// How long a signed assertion is valid: ten minutes, as Microsoft's own libraries choose.
const SIGNED_FOR: i64 = 600;

/// The public facts of a certificate and its key; of a fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The SHA-256 of the certificate.
    pub(super) thumbprint: [u8; 32],
    /// The SHA-256 of the private key. The certificate alone proves nothing, as it is public.
    pub(super) key: [u8; 32],
    /// The certificate's expiration, in seconds since 1970.
    pub(super) not_after: Option<i64>,
}

/// Why a certificate with its key cannot be used; for the pod's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// Its kind is not supported.
    Unfit(&'static str),
    /// The private key is damaged, or belongs to another certificate.
    Damaged(&'static str),
}

/// A certificate with its private key, of a kind that Entra ID accepts.
pub struct KeyPair {
    key: RsaKeyPair,
    facts: CertificateFacts,
    sha1: String,
    sha256: String,
}

/// Reads the key again. May take a second of CPU time.
type Read = dyn Fn(&mut Work) -> Result<KeyPair, KeyFault> + Send + Sync;

#[derive(Clone)]
enum KeySource {
    Loaded(Arc<KeyPair>),
    ReadAgain(Arc<Read>),
}

/// The certificate of an application. Cheap to clone.
#[derive(Clone)]
pub struct LoginCertificate {
    facts: CertificateFacts,
    source: KeySource,
}

impl KeyPair {
    /// From a certificate in DER and its private key in unencrypted PKCS#8.
    ///
    /// # Errors
    /// A key that Entra ID does not accept, that cannot be read, or that is not the certificate's.
    pub fn new(certificate: &[u8], pkcs8: &[u8]) -> Result<KeyPair, KeyFault> {
        let key = RsaKeyPair::from_pkcs8(pkcs8).map_err(|error| match error.to_string().as_str() {
            "WrongAlgorithm" => KeyFault::Unfit("the certificate's key is not RSA, and Entra ID accepts no other"),
            "TooSmall" | "TooLarge" => {
                KeyFault::Unfit("the certificate's private key is not an RSA key of 2048 to 4096 bits")
            }
            _ => KeyFault::Damaged("its numbers do not make an RSA key of 2048 to 4096 bits"),
        })?;
        // A certificate contains its public key in the encoding of ring, so that it need not be
        // parsed.
        let public = key.public().as_ref();
        if !certificate.windows(public.len()).any(|window| window == public) {
            return Err(KeyFault::Damaged("it does not belong to the certificate"));
        }
        let thumbprint = Sha256::digest(certificate);
        // Entra ID finds the certificate by it; no security depends on it.
        let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
        let not_after = ParsedCertificate::from_der(certificate).and_then(|facts| i64::try_from(facts.not_after).ok());
        let facts = CertificateFacts { thumbprint: thumbprint.into(), key: Sha256::digest(pkcs8).into(), not_after };
        Ok(KeyPair { key, facts, sha1: BASE64.encode(sha1), sha256: BASE64.encode(thumbprint) })
    }

    /// Its public facts.
    pub fn facts(&self) -> CertificateFacts {
        self.facts
    }

    /// A new assertion, valid from `now` on; `audience` is the token endpoint.
    ///
    /// # Errors
    /// Some numbers of the key are wrong, which shows only in the signature. Or the system has no
    /// random numbers.
    pub(super) fn sign(&self, client_id: &str, audience: &str, now: i64) -> Result<SecretString, KeyFault> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| KeyFault::Unfit("the system has no random numbers to sign with"))?;
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t": self.sha1, "x5t#S256": self.sha256 });
        let claims = json!({
            "aud": audience, "iss": client_id, "sub": client_id, "jti": hex::encode(id),
            "iat": now, "nbf": now, "exp": now + SIGNED_FOR,
        });
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let signed = self.key.sign(&RSA_PSS_SHA256, &random, text.as_bytes(), &mut signature);
        signed.map_err(|_| KeyFault::Damaged("what it signs does not fit its public half"))?;
        Ok(format!("{text}.{}", BASE64.encode(signature)).into())
    }
}

impl LoginCertificate {
    /// With a key that was just read.
    pub fn read(pair: KeyPair) -> LoginCertificate {
        LoginCertificate { facts: pair.facts, source: KeySource::Loaded(Arc::new(pair)) }
    }

    /// From its cached facts; `read` reads the key again when a token is requested.
    pub fn known(
        facts: CertificateFacts,
        read: impl Fn(&mut Work) -> Result<KeyPair, KeyFault> + Send + Sync + 'static,
    ) -> LoginCertificate {
        LoginCertificate { facts, source: KeySource::ReadAgain(Arc::new(read)) }
    }

    pub(super) fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The certificate with its key, which is read again unless it is loaded.
    ///
    /// # Errors
    /// The key cannot be read in time, or cannot be read any more.
    pub(super) async fn open(
        &self,
        compute: &Compute,
        namespace: &str,
        deadline: Instant,
    ) -> Result<Arc<KeyPair>, Error> {
        let read = match &self.source {
            KeySource::Loaded(pair) => return Ok(pair.clone()),
            KeySource::ReadAgain(read) => read,
        };
        let prepare = || {
            let read = read.clone();
            move |work: &mut Work| read(work)
        };
        let pair = compute.run(namespace, deadline, prepare).await?;
        Ok(Arc::new(pair?))
    }
}

impl From<KeyFault> for Error {
    fn from(fault: KeyFault) -> Error {
        match fault {
            KeyFault::Unfit(why) => Error::Credential(why),
            KeyFault::Damaged(why) => Error::DamagedKey(why),
        }
    }
}

impl From<compute::Error> for Error {
    fn from(error: compute::Error) -> Error {
        Error::Compute(error)
    }
}

/// Without the key.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("facts", &self.facts).finish_non_exhaustive()
    }
}
