//! The certificate that a service principal logs in with, parsed from the pod's Secret.
//!
//! Pure. Accepts PEM, or a PKCS#12 archive as base64, and finds the certificate of the private key.
//! The errors do not name the keys of the Secret: `credentials` puts them in front.

use crate::formats::certificate::ParsedCertificate;
use crate::formats::encoding::Bytes;
use crate::formats::pem::{self, Block};
use crate::formats::pkcs12::Work;
use crate::formats::{pkcs12, private_key};
use crate::model::{ExposeSecret as _, SecretBytes, SecretString};

/// The longest PEM that is parsed at once, in bytes: a key and a chain, in far less than a
/// millisecond.
const SHORT: usize = 16 << 10;

/// A certificate with its key, not parsed.
#[derive(Debug, Clone)]
pub struct CertificateText {
    form: TextForm,
}

#[derive(Debug, Clone)]
enum TextForm {
    /// PEM, or a PKCS#12 archive as base64 with its password.
    Any { text: SecretString, password: SecretString },
    /// PEM in two texts.
    Pair { certificate: SecretString, key: SecretString },
}

/// A certificate with its private key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// The private RSA key as PKCS#8.
    pub key: SecretBytes,
}

/// Why there is no certificate to log in with. Describes structures, never content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A PEM block begins, but cannot be parsed.
    #[error("holds a PEM block that is damaged; store the file as it is, with its line breaks")]
    Damaged,
    /// The private key is encrypted.
    #[error("holds an encrypted private key; decrypt it (openssl pkey), or give a PKCS#12 archive and its password")]
    Encrypted,
    /// The private key is missing.
    #[error("holds no private key; put the PEM blocks of the certificate and of its key into it")]
    NoKey,
    /// Two or more private keys.
    #[error("holds {0} private keys; leave only the one of the certificate")]
    ManyKeys(usize),
    /// The certificate is missing.
    #[error("holds no certificate; put the PEM blocks of the certificate and of its key into it")]
    NoCertificate,
    /// The key is not an RSA key.
    #[error("holds a key that is not RSA, and Entra ID accepts no other; make a certificate with an RSA key")]
    NotRsa,
    /// No certificate has the public key of the private key.
    #[error("holds a private key that belongs to none of its certificates; store the two that belong together")]
    Mismatch,
    /// The key cannot be parsed.
    #[error("cannot be used: {0}")]
    Key(#[from] private_key::Error),
    /// Neither PEM nor base64.
    #[error("is neither PEM nor a PKCS#12 archive in base64; binary archives must be encoded (base64 -w0 FILE.pfx)")]
    Unknown,
    /// The archive cannot be parsed.
    #[error("cannot be used: {0}")]
    Archive(pkcs12::Error),
}

impl CertificateError {
    /// Whether parsing would exceed the work limit.
    pub fn is_too_expensive(&self) -> bool {
        matches!(self, CertificateError::Archive(pkcs12::Error::TooMuchWork { .. }))
    }

    /// Whether there is a key that cannot log in: damaged, or not the certificate's.
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

impl CertificateText {
    /// PEM blocks in any order, or a PKCS#12 archive as base64 with this password.
    pub fn any(text: &SecretString, password: SecretString) -> CertificateText {
        CertificateText { form: TextForm::Any { text: text.clone(), password } }
    }

    /// PEM in two texts.
    pub fn pair(certificate: &SecretString, key: &SecretString) -> CertificateText {
        CertificateText { form: TextForm::Pair { certificate: certificate.clone(), key: key.clone() } }
    }

    /// Everything that decides the result of parsing.
    pub fn parts(&self) -> [&[u8]; 3] {
        let (kind, first, second): (&[u8], _, _) = match &self.form {
            TextForm::Any { text, password } => (b"any", text, password),
            TextForm::Pair { certificate, key } => (b"pair", certificate, key),
        };
        [kind, first.expose_secret().as_bytes(), second.expose_secret().as_bytes()]
    }

    /// Whether parsing is cheap enough for an async task: short, and without key derivation.
    pub fn is_cheap(&self) -> bool {
        match &self.form {
            TextForm::Any { text, .. } => is_pem(text.expose_secret()) && text.expose_secret().len() <= SHORT,
            TextForm::Pair { certificate, key } => {
                certificate.expose_secret().len() + key.expose_secret().len() <= SHORT
            }
        }
    }

    /// Parses certificate and key. Takes up to a second of CPU time; `work` limits it.
    ///
    /// # Errors
    /// The first part that is missing or does not match.
    pub fn read(&self, work: &mut Work) -> Result<ClientCertificate, CertificateError> {
        match &self.form {
            TextForm::Any { text, password } => ClientCertificate::read(text, password.expose_secret(), work),
            TextForm::Pair { certificate, key } => {
                ClientCertificate::read_pem(&[certificate.expose_secret(), key.expose_secret()])
            }
        }
    }
}

fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ")
}

impl ClientCertificate {
    /// Parses PEM blocks in any order, or a PKCS#12 archive as base64.
    ///
    /// There may be a chain: the certificate is the one with the key's public half.
    ///
    /// # Errors
    /// The first part that is missing or does not match.
    fn read(text: &SecretString, password: &str, work: &mut Work) -> Result<ClientCertificate, CertificateError> {
        let text = text.expose_secret();
        if is_pem(text) {
            return ClientCertificate::read_pem(&[text]);
        }
        let archive = pkcs12::read_base64(text.trim(), password, work).map_err(|error| {
            if matches!(error, pkcs12::Error::Base64(_)) {
                CertificateError::Unknown
            } else {
                CertificateError::Archive(error)
            }
        })?;
        pair(archive.certificates, archive.keys)
    }

    /// Parses certificate and key from PEM texts.
    ///
    /// # Errors
    /// As [`read`](ClientCertificate::read).
    fn read_pem(texts: &[&str]) -> Result<ClientCertificate, CertificateError> {
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
                    // Curve parameters, or comments.
                    _ => {}
                }
            }
        }
        pair(certificates, keys)
    }
}

/// PKCS#8 has it in the label, older forms in a header.
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
    let belongs = |der: &Vec<u8>| ParsedCertificate::from_der(der).is_some_and(|facts| facts.public_key == public);
    let certificate = certificates.into_iter().find(belongs).ok_or(CertificateError::Mismatch)?;
    Ok(ClientCertificate { certificate, key: key.to_vec().into() })
}
