//! The keys of a `kubernetes.io/tls` Secret: certificates and private key out of PEM or PKCS#12.
//!
//! Pure. The forms are upstream's, so that a Secret that it wrote stays the same to the byte where upstream was right
//! (spec/driver.md §5.4): RSA keys as PKCS#1, EC keys as SEC1, 64 columns. `desired` puts them into a Secret.

use crate::formats::chain::{self, Identifiers, Order};
use crate::formats::encoding::Bytes;
use crate::formats::pem::{self, Block, Text};
use crate::formats::{encoding, pkcs12, private_key};

/// The key of the certificates, the server's first.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The key of the private key.
pub(super) const PRIVATE_KEY: &str = "tls.key";
/// The key of the certificates of who signed.
pub(super) const AUTHORITY: &str = "ca.crt";

/// The end of every label of a private key's block.
const KEY_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// The header of a key that is encrypted in OpenSSL's old way (RFC 1421).
const PROC_TYPE: &str = "Proc-Type";

/// Why a file holds no certificate or no key; never tells content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TlsError {
    /// Neither PEM nor an archive.
    #[error(
        "the file is neither PEM nor a PKCS#12 archive with an empty password: {0}; give the object objectType secret, so that certificate and key come"
    )]
    Neither(pkcs12::Error),
    /// The archive or the text has no certificate.
    #[error("the file holds no certificate{}", Damaged(*.0))]
    NoCertificate(usize),
    /// The archive or the text has no private key.
    #[error("the file holds no private key{}; make the key exportable in the certificate's policy and use objectType secret", Damaged(*.0))]
    NoKey(usize),
    /// The key needs a password.
    #[error("the private key is encrypted with a password; store it without one")]
    Encrypted,
    /// The key is there, but cannot be read.
    #[error(transparent)]
    Key(private_key::Error),
}

struct Damaged(usize);

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} PEM blocks in it are damaged)"),
        }
    }
}

/// The value of `key`, one of the three, out of a file.
pub(super) fn value(key: &str, file: &[u8]) -> Result<Text, TlsError> {
    match key {
        PRIVATE_KEY => private(file),
        AUTHORITY => authority(file),
        _ => certificates(file).map(|(blocks, _)| pem::encode(&blocks)),
    }
}

/// The blocks of a text; none for an archive.
fn blocks(file: &[u8]) -> pem::Parsed {
    std::str::from_utf8(file).map(pem::parse).unwrap_or_default()
}

/// The archive that the file is, in DER or in base64, as Key Vault stores it.
fn archive(file: &[u8]) -> Result<pkcs12::Archive, TlsError> {
    let archive = match std::str::from_utf8(file) {
        Ok(text) if encoding::base64(text.trim()).is_ok() => pkcs12::read_base64(text.trim(), ""),
        Ok(_) | Err(_) => pkcs12::read(file, ""),
    };
    archive.map_err(TlsError::Neither)
}

/// The certificates in order, and whether their private key stands beside them.
fn certificates(file: &[u8]) -> Result<(Vec<Block>, bool), TlsError> {
    let parsed = blocks(file);
    let (found, with_key): (Vec<Block>, bool) = match parsed.blocks.is_empty() && parsed.damaged == 0 {
        false => {
            let with_key = parsed.blocks.iter().any(is_key);
            (parsed.blocks.into_iter().filter(Block::is_certificate).collect(), with_key)
        }
        true => {
            let archive = archive(file)?;
            let block = |der: &Vec<u8>| Block::new(pem::CERTIFICATE, der);
            (archive.certificates.iter().map(block).collect(), !archive.keys.is_empty())
        }
    };
    if found.is_empty() {
        return Err(TlsError::NoCertificate(parsed.damaged));
    }
    Ok((sorted(found), with_key))
}

/// Server first, where the certificates are one chain; else as they came.
fn sorted(found: Vec<Block>) -> Vec<Block> {
    let identifiers: Vec<Identifiers> = found.iter().map(|block| Identifiers::of(&block.content)).collect();
    match chain::order(&identifiers) {
        Ok(Order::Chain(order)) => order.into_iter().filter_map(|at| found.get(at).cloned()).collect(),
        Ok(Order::AsGiven(_)) | Err(_) => found,
    }
}

/// Who signed: of a server's own file all certificates but its own, else all.
fn authority(file: &[u8]) -> Result<Text, TlsError> {
    let (mut found, with_key) = certificates(file)?;
    if with_key && found.len() > 1 {
        found.remove(0);
    }
    Ok(pem::encode(&found))
}

fn is_key(block: &Block) -> bool {
    block.label.ends_with(KEY_LABEL)
}

/// The last private key, in the form customary for its kind.
fn private(file: &[u8]) -> Result<Text, TlsError> {
    let parsed = blocks(file);
    let pkcs8: Bytes = match parsed.blocks.is_empty() && parsed.damaged == 0 {
        false => {
            // By its label, so that parameters of a curve behind it do not hide it.
            let block = parsed.blocks.iter().rfind(|block| is_key(block)).ok_or(TlsError::NoKey(parsed.damaged))?;
            if block.label == ENCRYPTED || block.headers.iter().any(|(name, _)| name == PROC_TYPE) {
                return Err(TlsError::Encrypted);
            }
            private_key::pkcs8(&block.content).map_err(TlsError::Key)?
        }
        true => archive(file)?.keys.pop().ok_or(TlsError::NoKey(0))?,
    };
    Ok(pem::encode(&[private_key::customary(&pkcs8).map_err(TlsError::Key)?]))
}
