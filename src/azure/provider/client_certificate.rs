//! The certificate that a service principal logs in with: from what stands in the pod's Secret to certificate and key.
//!
//! Pure; takes PEM, or a PKCS#12 archive as base64, and finds the certificate that belongs to the key. Knows no key
//! names of the Secret: `credentials` puts them in front of the errors. When and where it is read is for
//! `certificate_login`; whether Entra ID accepts it is seen in `keyvault`.

use crate::formats::certificate::ParsedCertificate;
use crate::formats::encoding::Bytes;
use crate::formats::pem::{self, Block};
use crate::formats::pkcs12::Work;
use crate::formats::{pkcs12, private_key};
use crate::model::{ExposeSecret as _, SecretBytes, SecretString};

/// How long PEM may be that is read on the spot, in bytes: a key and a chain, in much less than a millisecond.
const SHORT: usize = 16 << 10;

/// What holds a certificate with its key, unread.
#[derive(Debug, Clone)]
pub struct CertificateText {
    form: TextForm,
}

#[derive(Debug, Clone)]
enum TextForm {
    /// PEM, or a PKCS#12 archive in base64 with its password.
    Any { text: SecretString, password: SecretString },
    /// PEM in two texts.
    Pair { certificate: SecretString, key: SecretString },
}

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
    /// Whether reading would take more than is allowed.
    pub fn is_too_expensive(&self) -> bool {
        matches!(self, CertificateError::Archive(pkcs12::Error::TooMuchWork { .. }))
    }

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

impl CertificateText {
    /// PEM blocks in any order, or a PKCS#12 archive in base64 that `password` opens.
    pub fn any(text: &SecretString, password: SecretString) -> CertificateText {
        CertificateText { form: TextForm::Any { text: text.clone(), password } }
    }

    /// PEM in two texts.
    pub fn pair(certificate: &SecretString, key: &SecretString) -> CertificateText {
        CertificateText { form: TextForm::Pair { certificate: certificate.clone(), key: key.clone() } }
    }

    /// All that decides what it holds.
    pub fn parts(&self) -> [&[u8]; 3] {
        let (kind, first, second): (&[u8], _, _) = match &self.form {
            TextForm::Any { text, password } => (b"any", text, password),
            TextForm::Pair { certificate, key } => (b"pair", certificate, key),
        };
        [kind, first.expose_secret().as_bytes(), second.expose_secret().as_bytes()]
    }

    /// Whether reading it takes so little that it may be done anywhere: it asks for no key derivation, and is short.
    pub fn is_cheap(&self) -> bool {
        match &self.form {
            TextForm::Any { text, .. } => is_pem(text.expose_secret()) && text.expose_secret().len() <= SHORT,
            TextForm::Pair { certificate, key } => {
                certificate.expose_secret().len() + key.expose_secret().len() <= SHORT
            }
        }
    }

    /// Reads certificate and key. Takes up to a second of a processor, as long as `work` allows.
    ///
    /// # Errors
    /// The first thing that is missing or does not fit.
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
    /// Reads certificate and key from `text`: PEM blocks in any order, or a PKCS#12 archive in base64 that `password` opens.
    ///
    /// A chain may come along: the certificate is the one that the key belongs to.
    ///
    /// # Errors
    /// The first thing that is missing or does not fit.
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

    /// Reads certificate and key from PEM texts.
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
    let belongs = |der: &Vec<u8>| ParsedCertificate::from_der(der).is_some_and(|facts| facts.public_key == public);
    let certificate = certificates.into_iter().find(belongs).ok_or(CertificateError::Mismatch)?;
    Ok(ClientCertificate { certificate, key: key.to_vec().into() })
}
