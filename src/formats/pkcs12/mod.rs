//! Reads PKCS#12 archives: private keys as PKCS#8, and certificates, each in the order of the
//! archive.
//!
//! Checks the integrity and decrypts; does not match keys with certificates, verify signatures or
//! sort (docs/reference/azure-provider.md#pkcs12).
//!
//! Supports the old algorithms (RC2, 3DES, SHA-1), which Key Vault writes, and the modern ones
//! (PBES2 with AES, SHA-2). Structures borrow from the buffer from which they are parsed, so that
//! decrypted bytes exist once and are wiped.

mod crypt;
mod structure;

use der::asn1::ObjectIdentifier;
use der::{AnyRef, Decode};
use spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use self::crypt::Password;
pub use self::crypt::Work;
use self::structure::{CertificateBag, ContentInfo, EncryptedData, EncryptedKey, Pfx, SafeBag};
use super::encoding::{self, Bytes};
use super::private_key;

/// The limits of an archive.
pub mod limits {
    /// The hash iterations of all key derivations of one archive together: about 0.2 s of CPU time.
    ///
    /// OpenSSL and Windows write 2,000 to 10,000 for each derivation, Java's older keystores
    /// 350,000 in all; two keys of 500,000 are accepted.
    pub const ITERATIONS: u32 = 1_000_000;
    /// Bags, that is keys and certificates. A chain needs ten.
    pub const BAGS: usize = 500;
}

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");

/// Why an archive cannot be read: structures and algorithms, never content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not base64.
    #[error("the PKCS#12 archive cannot be decoded: {0}")]
    Base64(#[from] encoding::Error),
    /// The structure is not that of an archive.
    #[error("the value is not a PKCS#12 archive, or the archive is damaged: {0} cannot be read")]
    Malformed(&'static str),
    /// BER with indefinite lengths.
    #[error("the PKCS#12 archive is written in BER with indefinite lengths, which is not supported")]
    Indefinite,
    /// Not version 3.
    #[error("the PKCS#12 archive has version {0}; only version 3 is supported")]
    Version(u8),
    /// The MAC does not match the content.
    #[error("the integrity check of the PKCS#12 archive fails: the password is wrong, or the archive is damaged")]
    Integrity,
    /// The decrypted bytes are not a structure.
    #[error("{0} of the PKCS#12 archive cannot be decrypted: the password is wrong, or the archive is damaged")]
    Decryption(&'static str),
    /// An unknown algorithm or kind of content.
    #[error("{what} of the PKCS#12 archive uses {oid}, which is not supported")]
    Unsupported {
        /// The part of the archive.
        what: &'static str,
        /// The identifier of the algorithm or of the kind.
        oid: ObjectIdentifier,
    },
    /// More hashing than [`limits::ITERATIONS`].
    #[error(
        "the PKCS#12 archive requires at least {required} iterations in its key derivations; at most {} are allowed: export it \
         again with fewer (openssl pkcs12 -export -iter 2048)",
        limits::ITERATIONS
    )]
    TooMuchWork {
        /// Without the iterations of parts within encrypted parts, which were not opened.
        required: u64,
    },
    /// More bags than [`limits::BAGS`].
    #[error("the PKCS#12 archive has more than {} keys and certificates", limits::BAGS)]
    TooManyBags,
    /// A key cannot be re-encoded.
    #[error("private key {number} of the PKCS#12 archive: {source}")]
    Key {
        /// Counted from 1, among the keys.
        number: usize,
        /// Why.
        source: private_key::Error,
    },
}

/// The content of an archive.
#[derive(Default)]
pub struct Archive {
    /// The private keys as PKCS#8, in the order of the archive.
    pub keys: Vec<Bytes>,
    /// The X.509 certificates in DER, in the order of the archive.
    pub certificates: Vec<Vec<u8>>,
}

/// Reads an archive from standard base64; skips carriage returns and line feeds.
///
/// # Errors
/// The text is not base64; or those of [`read`].
pub fn read_base64(text: &str, password: &str, work: &mut Work) -> Result<Archive, Error> {
    read(&encoding::base64(text)?, password, work)
}

/// Reads an archive.
///
/// Tries the empty password in both its forms: as a terminating zero, and as no bytes at all.
/// Accepts an archive without MAC. Skips attributes, and bags other than keys and certificates.
///
/// Takes up to a second of CPU time: as long as `work` allows.
///
/// # Errors
/// A wrong password, a damaged archive, an unknown algorithm, or more than one of the [`limits`]
/// allows.
pub fn read(der: &[u8], password: &str, work: &mut Work) -> Result<Archive, Error> {
    if matches!(der, [0x30, 0x80, ..]) {
        return Err(Error::Indefinite);
    }
    let pfx = Pfx::from_der(der).map_err(|_| Error::Malformed("the outer structure"))?;
    if pfx.version != 3 {
        return Err(Error::Version(pfx.version));
    }
    let content = pfx.auth_safe.octets("the outer content")?;
    work.allows(visible_iterations(&pfx, content))?;
    let mut forms = Password::forms(password);
    if let Some(mac) = &pfx.mac {
        forms = vec![crypt::verify(mac, content, forms, work)?];
    }
    // Without a MAC, only decryption shows which form of the password is right.
    let mut first_error = None;
    for form in forms {
        let mut reader = Reader { password: form, work: &mut *work, archive: Archive::default(), bags: 0 };
        match reader.safes(content) {
            Ok(()) => return Ok(reader.archive),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(Error::Integrity))
}

/// The iterations that an archive requires, as far as can be seen before the first derivation, so
/// that an archive above the limit costs nothing.
///
/// Parts that cannot be parsed count 0: reading them fails with the cause.
fn visible_iterations(pfx: &Pfx<'_>, content: &[u8]) -> u64 {
    let mac = pfx.mac.as_ref().map_or(0, |mac| u64::try_from(mac.iterations).unwrap_or_default());
    let safes = Vec::<ContentInfo<'_>>::from_der(content).unwrap_or_default();
    safes.iter().map(iterations_of).fold(mac, u64::saturating_add)
}

fn iterations_of(safe: &ContentInfo<'_>) -> u64 {
    if safe.content_type == ENCRYPTED_DATA {
        let data = safe.content.decode_as::<EncryptedData<'_>>();
        return data.map_or(0, |data| crypt::iterations(data.content.algorithm));
    }
    let bags = safe.octets("a content").ok().and_then(bags).unwrap_or_default();
    let keys = bags.iter().filter(|bag| bag.id == pkcs12::PKCS_12_PKCS8_KEY_BAG_OID);
    let iterations =
        keys.map(|bag| bag.value.decode_as::<EncryptedKey<'_>>().map_or(0, |key| crypt::iterations(key.algorithm)));
    iterations.fold(0, u64::saturating_add)
}

impl<'a> ContentInfo<'a> {
    /// The content of type data.
    fn octets(&self, what: &'static str) -> Result<&'a [u8], Error> {
        match self.content_type {
            DATA => {
                let octets = self.content.decode_as::<&der::asn1::OctetStringRef>();
                octets.map(|octets| octets.as_bytes()).map_err(|_| Error::Malformed(what))
            }
            oid => Err(Error::Unsupported { what, oid }),
        }
    }
}

/// Reads an archive with one form of the password.
struct Reader<'w> {
    password: Password,
    work: &'w mut Work,
    archive: Archive,
    bags: usize,
}

impl Reader<'_> {
    fn safes(&mut self, content: &[u8]) -> Result<(), Error> {
        let safes = Vec::<ContentInfo<'_>>::from_der(content).map_err(|_| Error::Malformed("the list of contents"))?;
        for safe in safes {
            match safe.content_type {
                ENCRYPTED_DATA => {
                    let data = safe.content.decode_as::<EncryptedData<'_>>();
                    let data = data.map_err(|_| Error::Malformed("an encrypted content"))?.content;
                    let octets = data.encrypted.ok_or(Error::Malformed("an encrypted content"))?;
                    let plain = self.decrypt(data.algorithm, octets.as_bytes(), "an encrypted content")?;
                    let bags = bags(&plain).ok_or(Error::Decryption("an encrypted content"))?;
                    self.bags(bags)?;
                }
                _ => {
                    let octets = safe.octets("a content")?;
                    self.bags(bags(octets).ok_or(Error::Malformed("a list of keys and certificates"))?)?;
                }
            }
        }
        Ok(())
    }

    fn bags(&mut self, bags: Vec<SafeBag<'_>>) -> Result<(), Error> {
        self.bags += bags.len();
        if self.bags > limits::BAGS {
            return Err(Error::TooManyBags);
        }
        for bag in bags {
            match bag.id {
                pkcs12::PKCS_12_KEY_BAG_OID => self.key(&encoded(bag.value)?)?,
                pkcs12::PKCS_12_PKCS8_KEY_BAG_OID => {
                    let key = bag.value.decode_as::<EncryptedKey<'_>>();
                    let key = key.map_err(|_| Error::Malformed("an encrypted private key"))?;
                    let plain = self.decrypt(key.algorithm, key.encrypted.as_bytes(), "a private key")?;
                    AnyRef::from_der(&plain).map_err(|_| Error::Decryption("a private key"))?;
                    self.key(&plain)?;
                }
                pkcs12::PKCS_12_CERT_BAG_OID => self.certificate(bag.value)?,
                pkcs12::PKCS_12_SAFE_CONTENTS_BAG_OID => {
                    return Err(Error::Unsupported { what: "a nested content", oid: bag.id });
                }
                // Revocation lists and secrets of other kinds: no file has a place for them.
                _ => {}
            }
        }
        Ok(())
    }

    fn key(&mut self, der: &[u8]) -> Result<(), Error> {
        let number = self.archive.keys.len() + 1;
        self.archive.keys.push(private_key::pkcs8(der).map_err(|source| Error::Key { number, source })?);
        Ok(())
    }

    fn certificate(&mut self, value: AnyRef<'_>) -> Result<(), Error> {
        let bag = value.decode_as::<CertificateBag<'_>>().map_err(|_| Error::Malformed("a certificate"))?;
        if bag.id != pkcs12::PKCS_12_X509_CERT_OID {
            return Err(Error::Unsupported { what: "a certificate", oid: bag.id });
        }
        self.archive.certificates.push(bag.certificate.as_bytes().to_vec());
        Ok(())
    }

    fn decrypt(
        &mut self,
        algorithm: AlgorithmIdentifierRef<'_>,
        data: &[u8],
        what: &'static str,
    ) -> Result<Bytes, Error> {
        crypt::decrypt(algorithm, data, &self.password, self.work, what)
    }
}

fn bags(der: &[u8]) -> Option<Vec<SafeBag<'_>>> {
    Vec::from_der(der).ok()
}

/// The bytes of a value, with its tag and length.
fn encoded(value: AnyRef<'_>) -> Result<Bytes, Error> {
    let encoded = der::Encode::to_der(&value).map_err(|_| Error::Malformed("a private key"))?;
    Ok(Zeroizing::new(encoded))
}
