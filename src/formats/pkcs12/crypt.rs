//! The passwords, integrity checks and ciphers of PKCS#12 archives.
//!
//! The algorithms are those of the RustCrypto crates; this file selects them by identifier, and
//! limits the iterations so that no archive keeps a thread busy.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, KeyInit, KeyIvInit as _};
use der::AnyRef;
use der::asn1::ObjectIdentifier;
use hmac::digest::block_api::{BlockSizeUser, EagerHash};
use hmac::digest::{Digest, FixedOutputReset};
use hmac::{Hmac, Mac as _};
use pkcs5::pbes2::{self, Kdf};
use pkcs12::MacData;
use pkcs12::kdf::{Pkcs12KeyType, derive_key};
use pkcs12::pbe_params::Pkcs12PbeParams;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};
use spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::Error;
use super::limits::ITERATIONS;
use super::structure::Pbes2Parameters;
use crate::formats::encoding::Bytes;

const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const SHA_224: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.4");
const SHA_512_224: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.5");
const SHA_512_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.6");

/// Decrypts a buffer in place with a key and an initialization vector; returns the length of the
/// plain text.
type Cipher = fn(&[u8], &[u8], &mut [u8]) -> Option<usize>;

/// One form of a password.
pub(super) struct Password {
    /// For PBES2: UTF-8.
    text: Bytes,
    /// For older algorithms: UTF-16, big endian, with a terminating zero; one form of the empty
    /// password has none.
    wide: Bytes,
}

impl Password {
    /// The forms in the order in which they are tried; only the empty password has two (RFC 7292,
    /// B.1).
    pub(super) fn forms(password: &str) -> Vec<Password> {
        let text = || Zeroizing::new(password.as_bytes().to_vec());
        let mut wide = Zeroizing::new(Vec::with_capacity(2 * password.len() + 2));
        wide.extend(password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes));
        let mut forms = vec![Password { text: text(), wide }];
        if password.is_empty() {
            forms.push(Password { text: text(), wide: Zeroizing::default() });
        }
        forms
    }
}

/// Counts the hash iterations that one archive has cost, against [`ITERATIONS`].
#[derive(Debug, Default)]
pub struct Work {
    spent: u32,
}

impl Work {
    /// In iterations.
    pub fn spent(&self) -> u32 {
        self.spent
    }

    /// Fails if this many more would exceed the limit.
    pub(super) fn allows(&self, iterations: u64) -> Result<(), Error> {
        let required = u64::from(self.spent).saturating_add(iterations);
        if required > u64::from(ITERATIONS) { Err(Error::TooMuchWork { required }) } else { Ok(()) }
    }

    fn spend(&mut self, iterations: u32) -> Result<(), Error> {
        self.allows(iterations.into())?;
        self.spent += iterations;
        Ok(())
    }
}

/// Finds the form of the password under which the MAC matches the content.
pub(super) fn verify(mac: &MacData, content: &[u8], forms: Vec<Password>, work: &mut Work) -> Result<Password, Error> {
    for form in forms {
        let iterations = u32::try_from(mac.iterations).map_err(|_| Error::Malformed("the integrity check"))?;
        work.spend(iterations)?;
        let check = match mac.mac.algorithm.oid {
            SHA_1 => check::<Sha1>,
            SHA_224 => check::<Sha224>,
            SHA_256 => check::<Sha256>,
            SHA_384 => check::<Sha384>,
            SHA_512 => check::<Sha512>,
            SHA_512_224 => check::<Sha512_224>,
            SHA_512_256 => check::<Sha512_256>,
            oid => return Err(Error::Unsupported { what: "the integrity check", oid }),
        };
        if check(mac, content, &form) {
            return Ok(form);
        }
    }
    Err(Error::Integrity)
}

fn check<D>(mac: &MacData, content: &[u8], password: &Password) -> bool
where
    D: EagerHash + Digest + FixedOutputReset + BlockSizeUser,
{
    let salt = mac.mac_salt.as_bytes();
    let size = <D as Digest>::output_size();
    let key = derive_key::<D>(&password.wide, salt, Pkcs12KeyType::Mac, mac.iterations, size);
    let Ok(hmac) = <Hmac<D> as KeyInit>::new_from_slice(&Zeroizing::new(key)) else {
        return false;
    };
    hmac.chain_update(content).verify_slice(mac.mac.digest.as_bytes()).is_ok()
}

/// Decrypts `data` with the algorithm that the archive names for it; `what` names the data in
/// errors.
pub(super) fn decrypt(
    algorithm: AlgorithmIdentifierRef<'_>,
    data: &[u8],
    password: &Password,
    work: &mut Work,
    what: &'static str,
) -> Result<Bytes, Error> {
    if algorithm.oid == pbes2::PBES2_OID {
        return decrypt_modern(algorithm, data, password, work, what);
    }
    let (cipher, key_size) = cipher(algorithm.oid).ok_or(Error::Unsupported { what, oid: algorithm.oid })?;
    let (params, rounds) = legacy(algorithm, key_size)?;
    work.spend(rounds)?;
    let derive = |kind, size| {
        Zeroizing::new(derive_key::<Sha1>(&password.wide, params.salt.as_bytes(), kind, params.iterations, size))
    };
    let key = derive(Pkcs12KeyType::EncryptionKey, key_size);
    let mut buffer = Zeroizing::new(data.to_vec());
    let length = cipher(&key, &derive(Pkcs12KeyType::Iv, 8), &mut buffer).ok_or(Error::Decryption(what))?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The parameters of an old algorithm, and the iterations that they cost.
fn legacy(algorithm: AlgorithmIdentifierRef<'_>, key_size: usize) -> Result<(Pkcs12PbeParams, u32), Error> {
    let params = algorithm.parameters.and_then(|params| params.decode_as::<Pkcs12PbeParams>().ok());
    let params = params.ok_or(Error::Malformed("the parameters of a cipher"))?;
    let rounds = u32::try_from(params.iterations).map_err(|_| Error::Malformed("the parameters of a cipher"))?;
    // One derivation for the vector, and one for each SHA-1 output in the key.
    Ok((params, rounds.saturating_mul(if key_size > 20 { 3 } else { 2 })))
}

/// The iterations that decryption with `algorithm` costs; 0 if its parameters cannot be parsed.
pub(super) fn iterations(algorithm: AlgorithmIdentifierRef<'_>) -> u64 {
    let rounds = match algorithm.oid {
        pbes2::PBES2_OID => {
            let params = algorithm.parameters.and_then(|params| pbes2::Parameters::try_from(params).ok());
            params.and_then(|params| params.kdf.pbkdf2().map(|kdf| kdf.iteration_count))
        }
        oid => cipher(oid).and_then(|(_, key_size)| legacy(algorithm, key_size).ok()).map(|(_, rounds)| rounds),
    };
    rounds.unwrap_or_default().into()
}

/// An old cipher, and the size of its key in bytes.
fn cipher(oid: ObjectIdentifier) -> Option<(Cipher, usize)> {
    match oid {
        pkcs12::PKCS_12_PBE_WITH_SHAAND3_KEY_TRIPLE_DES_CBC => Some((decrypt_with::<des::TdesEde3>, 24)),
        pkcs12::PKCS_12_PBE_WITH_SHAAND2_KEY_TRIPLE_DES_CBC => Some((decrypt_with::<des::TdesEde2>, 16)),
        pkcs12::PKCS_12_PBE_WITH_SHAAND128_BIT_RC2_CBC => Some((decrypt_with::<rc2::Rc2>, 16)),
        pkcs12::PKCS_12_PBEWITH_SHAAND40_BIT_RC2_CBC => Some((decrypt_with::<rc2::Rc2>, 5)),
        _ => None,
    }
}

/// The [`Cipher`] of a block cipher in CBC mode.
fn decrypt_with<C>(key: &[u8], vector: &[u8], buffer: &mut [u8]) -> Option<usize>
where
    C: BlockCipherDecrypt + KeyInit,
{
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, vector).ok()?;
    cipher.decrypt_padded::<Pkcs7>(buffer).ok().map(<[u8]>::len)
}

fn decrypt_modern(
    algorithm: AlgorithmIdentifierRef<'_>,
    data: &[u8],
    password: &Password,
    work: &mut Work,
    what: &'static str,
) -> Result<Bytes, Error> {
    let params = algorithm.parameters.ok_or(Error::Malformed("the parameters of a cipher"))?;
    let unknown = || match unknown_part(params) {
        Some(oid) => Error::Unsupported { what, oid },
        None => Error::Malformed("the parameters of a cipher"),
    };
    let params = pbes2::Parameters::try_from(params).map_err(|_| unknown())?;
    match &params.kdf {
        Kdf::Pbkdf2(kdf) => work.spend(kdf.iteration_count)?,
        // The archive would choose how much memory it takes, and no program writes scrypt into
        // archives.
        Kdf::Scrypt(_) => return Err(Error::Unsupported { what, oid: params.kdf.oid() }),
        _ => return Err(unknown()),
    }
    let mut buffer = Zeroizing::new(data.to_vec());
    let length = params.decrypt_in_place(&password.text, &mut buffer).map_err(|_| Error::Decryption(what))?.len();
    buffer.truncate(length);
    Ok(buffer)
}

/// The unknown algorithm in PBES2 parameters; the library's error does not name it.
fn unknown_part(params: AnyRef<'_>) -> Option<ObjectIdentifier> {
    let parts = params.decode_as::<Pbes2Parameters<'_>>().ok()?;
    match pbes2::EncryptionScheme::try_from(parts.encryption) {
        Ok(_) => Some(parts.kdf.oid),
        Err(_) => Some(parts.encryption.oid),
    }
}
