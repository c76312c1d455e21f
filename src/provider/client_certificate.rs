//! The certificate that a service principal logs in with: from what stands in the pod's Secret to certificate and key.
//!
//! Pure; takes PEM, or a PKCS#12 archive as base64, and finds the certificate that belongs to the key. Knows no key names of
//! the Secret: `credentials` puts them in front of the errors. Whether Entra ID accepts it is seen in `keyvault`.

use crate::formats::certificate::Facts;
use crate::formats::encoding::Bytes;
use crate::formats::pem::{self, Block};
use crate::formats::{pkcs12, private_key};
use crate::model::{ExposeSecret as _, SecretBytes, SecretString};

/// A certificate with the private key that belongs to it.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Its private RSA key as PKCS#8.
    pub key: SecretBytes,
}

/// Why there is no certificate to log in with; tells structures, never content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A PEM block begins, but cannot be read.
    #[error("holds a PEM block that is damaged; store the file as it is, with its line breaks")]
    Damaged,
    /// The private key needs a password.
    #[error("holds an encrypted private key; decrypt it (openssl pkey), or give a PKCS#12 archive and its password")]
    Encrypted,
    /// There is no key.
    #[error("holds no private key; put the PEM blocks of the certificate and of its key into it")]
    NoKey,
    /// There is more than one key.
    #[error("holds {0} private keys; leave only the one of the certificate")]
    ManyKeys(usize),
    /// There is no certificate.
    #[error("holds no certificate; put the PEM blocks of the certificate and of its key into it")]
    NoCertificate,
    /// The key has another algorithm.
    #[error("holds a key that is not RSA, and Entra ID accepts no other; make a certificate with an RSA key")]
    NotRsa,
    /// No certificate belongs to the key.
    #[error("holds a private key that belongs to none of its certificates; store the two that belong together")]
    Mismatch,
    /// The key cannot be read.
    #[error("cannot be used: {0}")]
    Key(#[from] private_key::Error),
    /// It is neither PEM nor base64.
    #[error("is neither PEM nor a PKCS#12 archive in base64; binary archives must be encoded (base64 -w0 FILE.pfx)")]
    Unknown,
    /// The archive cannot be read.
    #[error("cannot be used: {0}")]
    Archive(pkcs12::Error),
}

impl CertificateError {
    /// Whether there is a key, but one that cannot log in as it is: damaged, or not the certificate's.
    pub fn is_damage(&self) -> bool {
        use CertificateError::{Archive, Damaged, Key, Mismatch, NotRsa, Unknown};
        use pkcs12::Error::{Base64, Decryption, Integrity, Malformed};
        matches!(
            self,
            Damaged
                | Mismatch
                | NotRsa
                | Unknown
                | Key(_)
                | Archive(Base64(_) | Malformed(_) | Integrity | Decryption(_) | pkcs12::Error::Key { .. })
        )
    }
}

impl ClientCertificate {
    /// Reads certificate and key from `text`: PEM blocks in any order, or a PKCS#12 archive in base64 that `password` opens.
    ///
    /// A chain may come along: the certificate is the one that the key belongs to.
    ///
    /// # Errors
    /// The first thing that is missing or does not fit.
    pub fn read(text: &SecretString, password: &str) -> Result<ClientCertificate, CertificateError> {
        let text = text.expose_secret();
        if text.contains("-----BEGIN ") {
            return ClientCertificate::read_pem(&[text]);
        }
        let archive = pkcs12::read_base64(text.trim(), password).map_err(|error| {
            if matches!(error, pkcs12::Error::Base64(_)) {
                CertificateError::Unknown
            } else {
                CertificateError::Archive(error)
            }
        })?;
        pair(archive.certificates, archive.keys)
    }

    /// Reads certificate and key from PEM texts.
    ///
    /// # Errors
    /// As [`read`](ClientCertificate::read).
    pub fn read_pem(texts: &[&str]) -> Result<ClientCertificate, CertificateError> {
        let (mut certificates, mut keys) = (Vec::new(), Vec::new());
        for text in texts {
            let parsed = pem::parse(text);
            if parsed.damaged > 0 {
                return Err(CertificateError::Damaged);
            }
            for block in &parsed.blocks {
                match block {
                    block if block.is_certificate() => certificates.push(block.content.to_vec()),
                    block if is_encrypted(block) => return Err(CertificateError::Encrypted),
                    block if block.label.ends_with(pem::PRIVATE_KEY) => keys.push(private_key::pkcs8(&block.content)?),
                    // Parameters of a curve, or a remark.
                    _ => {}
                }
            }
        }
        pair(certificates, keys)
    }
}

/// PKCS#8 says so in its label, the older forms in a header.
fn is_encrypted(block: &Block) -> bool {
    block.label == "ENCRYPTED PRIVATE KEY" || block.headers.iter().any(|(_, value)| value.contains("ENCRYPTED"))
}

fn pair(certificates: Vec<Vec<u8>>, keys: Vec<Bytes>) -> Result<ClientCertificate, CertificateError> {
    let [key] = keys.as_slice() else {
        return Err(if keys.is_empty() { CertificateError::NoKey } else { CertificateError::ManyKeys(keys.len()) });
    };
    if certificates.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    let public = private_key::rsa_public_key(key).ok_or(CertificateError::NotRsa)?;
    let belongs = |der: &Vec<u8>| Facts::of(der).is_some_and(|facts| facts.public_key == public);
    let certificate = certificates.into_iter().find(belongs).ok_or(CertificateError::Mismatch)?;
    Ok(ClientCertificate { certificate, key: key.to_vec().into() })
}
