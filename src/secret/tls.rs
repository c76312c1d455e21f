//! The keys of a `kubernetes.io/tls` Secret: certificates and private key from PEM or PKCS#12.
//!
//! Pure. The encodings are upstream's, so that a Secret that upstream wrote correctly keeps its
//! bytes (docs/reference/csi-driver.md#tls-secrets): RSA keys as PKCS#1, EC keys as SEC1, 64
//! columns.

use crate::formats::chain::{self, Identifiers, Order};
use crate::formats::encoding::Bytes;
use crate::formats::pem::{self, Block, Text};
use crate::formats::pkcs12::{self, Work};
use crate::formats::{encoding, private_key};

/// The key with the certificates, the server's first.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The key with the private key.
pub(super) const PRIVATE_KEY: &str = "tls.key";
/// The key with the certificates of the issuers.
pub(super) const AUTHORITY: &str = "ca.crt";

/// The end of every label of a PEM block with a private key.
const KEY_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// The header of a key in OpenSSL's traditional encryption (RFC 1421).
const PROC_TYPE: &str = "Proc-Type";

/// Why a file yields no certificate or no key; without any content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(
        "the file is neither PEM nor a PKCS#12 archive with an empty password: {0}; give the object objectType secret, so that certificate and key come"
    )]
    Neither(pkcs12::Error),
    /// Opening the archive would exceed the work limit.
    #[error(transparent)]
    TooExpensive(pkcs12::Error),
    /// The number of damaged PEM blocks.
    #[error("the file contains no certificate{}", Damaged(*.0))]
    NoCertificate(usize),
    /// The number of damaged PEM blocks.
    #[error("the file contains no private key{}; make the key exportable in the certificate's policy and use objectType secret", Damaged(*.0))]
    NoKey(usize),
    #[error("the private key is encrypted with a password; store it without one")]
    Encrypted,
    /// The key cannot be parsed.
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

/// The longest PEM that is parsed on the caller's thread, in bytes.
const SHORT: usize = 16 << 10;

/// A file that was taken apart, once for all Secrets that need a part of it.
pub(super) enum Opened {
    Pem(pem::Parsed),
    Archive(pkcs12::Archive),
}

/// Whether a file costs so little to take apart that any thread may do it.
pub(super) fn is_cheap(file: &[u8]) -> bool {
    file.len() <= SHORT && std::str::from_utf8(file).is_ok_and(|text| text.contains("-----BEGIN "))
}

/// Takes a file apart. An archive costs up to a second of CPU time, as far as `work` allows.
pub(super) fn open(file: &[u8], work: &mut Work) -> Result<Opened, TlsError> {
    let parsed = std::str::from_utf8(file).map(pem::parse).unwrap_or_default();
    if !parsed.blocks.is_empty() || parsed.damaged > 0 {
        return Ok(Opened::Pem(parsed));
    }
    // DER, or base64 as Key Vault stores it.
    let archive = match std::str::from_utf8(file) {
        Ok(text) if encoding::base64(text.trim()).is_ok() => pkcs12::read_base64(text.trim(), "", work),
        Ok(_) | Err(_) => pkcs12::read(file, "", work),
    };
    archive.map(Opened::Archive).map_err(|error| {
        let expensive = matches!(error, pkcs12::Error::TooMuchWork { .. });
        if expensive { TlsError::TooExpensive(error) } else { TlsError::Neither(error) }
    })
}

/// The value of `key`, one of the three constants above, from a file.
pub(super) fn value(key: &str, file: &Opened) -> Result<Text, TlsError> {
    match key {
        PRIVATE_KEY => private(file),
        AUTHORITY => authority(file),
        _ => certificates(file).map(|(blocks, _)| pem::encode(&blocks)),
    }
}

/// The certificates in order, and whether the file has a private key, too.
fn certificates(file: &Opened) -> Result<(Vec<Block>, bool), TlsError> {
    let (found, with_key, damaged): (Vec<Block>, bool, usize) = match file {
        Opened::Pem(parsed) => {
            let with_key = parsed.blocks.iter().any(is_key);
            let found = parsed.blocks.iter().filter(|block| block.is_certificate());
            (found.cloned().collect(), with_key, parsed.damaged)
        }
        Opened::Archive(archive) => {
            let block = |der: &Vec<u8>| Block::new(pem::CERTIFICATE, der);
            (archive.certificates.iter().map(block).collect(), !archive.keys.is_empty(), 0)
        }
    };
    if found.is_empty() {
        return Err(TlsError::NoCertificate(damaged));
    }
    Ok((sorted(found), with_key))
}

/// Server first if the certificates form one chain, else in the order of the file.
fn sorted(found: Vec<Block>) -> Vec<Block> {
    let identifiers: Vec<Identifiers> = found.iter().map(|block| Identifiers::of(&block.content)).collect();
    match chain::order(&identifiers) {
        Ok(Order::Chain(order)) => order.into_iter().filter_map(|at| found.get(at).cloned()).collect(),
        Ok(Order::AsGiven(_)) | Err(_) => found,
    }
}

/// The issuers: in a file with a private key all certificates except the first, else all.
fn authority(file: &Opened) -> Result<Text, TlsError> {
    let (mut found, with_key) = certificates(file)?;
    if with_key && found.len() > 1 {
        found.remove(0);
    }
    Ok(pem::encode(&found))
}

fn is_key(block: &Block) -> bool {
    block.label.ends_with(KEY_LABEL)
}

/// The last private key, in the encoding customary for its algorithm.
fn private(file: &Opened) -> Result<Text, TlsError> {
    let read: Bytes;
    let pkcs8 = match file {
        Opened::Pem(parsed) => {
            // EC PARAMETERS may follow the key.
            let block = parsed.blocks.iter().rfind(|block| is_key(block)).ok_or(TlsError::NoKey(parsed.damaged))?;
            if block.label == ENCRYPTED || block.headers.iter().any(|(name, _)| name == PROC_TYPE) {
                return Err(TlsError::Encrypted);
            }
            read = private_key::pkcs8(&block.content).map_err(TlsError::Key)?;
            &read
        }
        Opened::Archive(archive) => archive.keys.last().ok_or(TlsError::NoKey(0))?,
    };
    Ok(pem::encode(&[private_key::traditional(pkcs8).map_err(TlsError::Key)?]))
}
