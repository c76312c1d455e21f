//! Converts private keys to PKCS#8, or from it to the traditional form for their algorithm.
//!
//! Re-encodes without arithmetic: does not compute a missing public half, and does not prove that
//! the halves match (docs/reference/azure-provider.md#private-keys). All bytes are wiped on drop.

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use pkcs8::PrivateKeyInfoRef;
use sec1::{EcParameters, EcPrivateKey};
use spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::encoding::Bytes;
use super::pem::{self, Block};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// Curves and the length of their private keys in bytes: P-256, P-384, P-521, secp256k1.
const CURVES: &[(ObjectIdentifier, usize)] = &[
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), 32),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), 48),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), 66),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), 32),
];

/// Why a private key cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None of the supported forms.
    #[error("the private key is neither PKCS#8 nor PKCS#1 (RSA) nor SEC1 (EC), or it is damaged")]
    Unreadable,
    /// The algorithm is EC, but the key is not SEC1.
    #[error("the EC private key in the PKCS#8 structure is damaged")]
    Ec,
    /// The key has curve parameters instead of a name.
    #[error("the EC private key does not name its curve; keys with explicit curve parameters are not supported")]
    UnnamedCurve,
    /// The private number is longer than the curve allows.
    #[error("the EC private key is longer than its curve allows")]
    TooLong,
}

/// RFC 8017, A.1.2; keys with more than two primes are not supported.
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
    private_exponent: UintRef<'a>,
    prime1: UintRef<'a>,
    prime2: UintRef<'a>,
    exponent1: UintRef<'a>,
    exponent2: UintRef<'a>,
    coefficient: UintRef<'a>,
}

/// RFC 8017, A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// Re-encodes a key in DER as PKCS#8 without attributes; accepts PKCS#8, PKCS#1 (RSA) and SEC1
/// (EC).
///
/// RSA keys get explicit NULL parameters. EC keys name their curve in the algorithm only, and their
/// number is padded to the curve's length. Keys of other algorithms keep their parameters and
/// bytes.
///
/// # Errors
/// None of the forms, or an EC key that does not suit its curve.
pub fn pkcs8(der: &[u8]) -> Result<Bytes, Error> {
    if let Ok(info) = PrivateKeyInfoRef::try_from(der) {
        return from_pkcs8(&info);
    }
    if let Ok(key) = EcPrivateKey::from_der(der) {
        let curve = key.parameters.and_then(EcParameters::named_curve).ok_or(Error::UnnamedCurve)?;
        return ec(curve, &key, None);
    }
    RsaPrivateKey::from_der(der).map_err(|_| Error::Unreadable)?;
    wrap(AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) }, der)
}

/// A PEM block of the traditional form for the key's algorithm: PKCS#1 for RSA, SEC1 for EC, PKCS#8
/// for others.
///
/// # Errors
/// The key is not PKCS#8, or an EC key does not name its curve.
pub fn traditional(pkcs8: &[u8]) -> Result<Block, Error> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(|_| Error::Unreadable)?;
    let inner = info.private_key.as_bytes();
    match info.algorithm.oid {
        RSA => Ok(Block::new("RSA PRIVATE KEY", inner)),
        EC => {
            let curve =
                info.algorithm.parameters.and_then(|named| named.decode_as().ok()).ok_or(Error::UnnamedCurve)?;
            let key = EcPrivateKey::from_der(inner).map_err(|_| Error::Ec)?;
            let named = EcPrivateKey { parameters: Some(EcParameters::NamedCurve(curve)), ..key };
            Ok(Block::new("EC PRIVATE KEY", &Zeroizing::new(named.to_der().map_err(|_| Error::Ec)?)))
        }
        _ => Ok(Block::new(pem::PRIVATE_KEY, pkcs8)),
    }
}

/// The public half of an RSA key in PKCS#8, as in its certificate: modulus and exponent. `None` for
/// any other key.
pub fn rsa_public_key(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).ok().filter(|info| info.algorithm.oid == RSA)?;
    let key = RsaPrivateKey::from_der(info.private_key.as_bytes()).ok()?;
    RsaPublicKey { modulus: key.modulus, public_exponent: key.public_exponent }.to_der().ok()
}

fn from_pkcs8(info: &PrivateKeyInfoRef<'_>) -> Result<Bytes, Error> {
    let inner = info.private_key.as_bytes();
    match info.algorithm.oid {
        RSA => {
            RsaPrivateKey::from_der(inner).map_err(|_| Error::Unreadable)?;
            wrap(AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) }, inner)
        }
        EC => {
            let curve =
                info.algorithm.parameters.and_then(|named| named.decode_as().ok()).ok_or(Error::UnnamedCurve)?;
            let key = EcPrivateKey::from_der(inner).map_err(|_| Error::Ec)?;
            ec(curve, &key, info.public_key.as_ref().and_then(BitStringRef::as_bytes))
        }
        _ => wrap(info.algorithm, inner),
    }
}

/// An EC key with its curve in the algorithm; `outer` is the public half if the key itself has
/// none.
fn ec(curve: ObjectIdentifier, key: &EcPrivateKey<'_>, outer: Option<&[u8]>) -> Result<Bytes, Error> {
    let known = CURVES.iter().find(|(oid, _)| *oid == curve);
    let number =
        known.map_or(Ok(Zeroizing::new(key.private_key.to_vec())), |(_, size)| padded(key.private_key, *size))?;
    let inner = EcPrivateKey { private_key: &number, parameters: None, public_key: key.public_key.or(outer) };
    let inner = Zeroizing::new(inner.to_der().map_err(|_| Error::Ec)?);
    wrap(AlgorithmIdentifierRef { oid: EC, parameters: Some(AnyRef::from(&curve)) }, &inner)
}

/// The number in `size` bytes, with leading zeros.
fn padded(number: &[u8], size: usize) -> Result<Bytes, Error> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    let pad = size.checked_sub(digits.len()).ok_or(Error::TooLong)?;
    let mut padded = Zeroizing::new(vec![0; size]);
    padded[pad..].copy_from_slice(digits);
    Ok(padded)
}

fn wrap(algorithm: AlgorithmIdentifierRef<'_>, inner: &[u8]) -> Result<Bytes, Error> {
    let inner = OctetStringRef::new(inner).map_err(|_| Error::Unreadable)?;
    let info = PrivateKeyInfoRef::new(algorithm, inner);
    Ok(Zeroizing::new(info.to_der().map_err(|_| Error::Unreadable)?))
}
