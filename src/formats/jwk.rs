//! Converts public keys from JSON Web Keys (Key Vault's form) to SubjectPublicKeyInfo.
//!
//! Checks lengths, but not whether a point lies on its curve: the vault generated the key
//! (docs/reference/azure-provider.md#keys). Nothing here is secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Encode, Sequence};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// In bytes. Key Vault generates 4096 bits at most; OpenSSL refuses more than 16384.
const MAX_MODULUS: usize = 2048;

/// How many characters of a name from the vault an error shows.
const SHOWN: usize = 64;

/// A public key in a vault's response; numbers in base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Jwk<'a> {
    /// The type of the key.
    pub kty: Option<&'a str>,
    /// RSA: the modulus.
    pub n: Option<&'a str>,
    /// RSA: the public exponent.
    pub e: Option<&'a str>,
    /// EC: the curve.
    pub crv: Option<&'a str>,
    /// EC: the first coordinate of the point.
    pub x: Option<&'a str>,
    /// EC: the second coordinate of the point.
    pub y: Option<&'a str>,
}

/// Why a key has no SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A symmetric key, which has no public half, or an unknown type.
    #[error(
        "the key type {0:?} is not supported, only RSA, RSA-HSM, EC and EC-HSM have a public half that can be mounted"
    )]
    Type(String),
    /// Not one of the three curves.
    #[error("the curve {0:?} is not supported, only P-256, P-384 and P-521 are")]
    Curve(String),
    /// The vault omitted a member.
    #[error("the vault's response has no member {0:?}")]
    Missing(&'static str),
    /// The member, and what is wrong with its number.
    #[error("the member {0:?} of the vault's response {1}")]
    Number(&'static str, &'static str),
}

/// A curve that Key Vault and X.509 both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

impl Curve {
    fn named(name: &str) -> Option<Curve> {
        match name {
            "P-256" => Some(Curve::P256),
            "P-384" => Some(Curve::P384),
            "P-521" => Some(Curve::P521),
            _ => None,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Curve::P256 => ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
            Curve::P384 => ObjectIdentifier::new_unwrap("1.3.132.0.34"),
            Curve::P521 => ObjectIdentifier::new_unwrap("1.3.132.0.35"),
        }
    }

    /// The length of a coordinate in bytes.
    fn size(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }
}

/// RFC 8017, A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// The key as SubjectPublicKeyInfo in DER.
///
/// # Errors
/// A type or curve that is not supported, a member that is missing, or a number of the wrong
/// length.
pub fn public_key(key: &Jwk<'_>) -> Result<Vec<u8>, Error> {
    match key.kty.ok_or(Error::Missing("kty"))? {
        "RSA" | "RSA-HSM" => rsa(&number("n", key.n)?, &number("e", key.e)?),
        "EC" | "EC-HSM" => {
            let name = key.crv.ok_or(Error::Missing("crv"))?;
            let curve = Curve::named(name).ok_or_else(|| Error::Curve(shown(name)))?;
            ec(curve, &number("x", key.x)?, &number("y", key.y)?)
        }
        other => Err(Error::Type(shown(other))),
    }
}

/// The SubjectPublicKeyInfo of an RSA key; ignores leading zeros.
///
/// # Errors
/// A number that is zero, or a modulus of more than 16384 bits.
pub fn rsa(n: &[u8], e: &[u8]) -> Result<Vec<u8>, Error> {
    let modulus = digits(n);
    if modulus.len() > MAX_MODULUS {
        return Err(Error::Number("n", "is longer than 16384 bits"));
    }
    let unsigned = |name, bytes| match digits(bytes) {
        [] => Err(Error::Number(name, "is zero")),
        digits => UintRef::new(digits).map_err(|_| Error::Number(name, "is not a number")),
    };
    let key = RsaPublicKey { modulus: unsigned("n", n)?, public_exponent: unsigned("e", e)? };
    let bits = key.to_der().map_err(|_| Error::Number("n", "is too long"))?;
    info(AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) }, &bits)
}

/// The SubjectPublicKeyInfo of an EC key with an uncompressed point; coordinates are padded to the
/// curve's length.
///
/// # Errors
/// A coordinate that is longer than the curve allows.
pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Vec<u8>, Error> {
    let mut point = vec![0x04];
    for (name, coordinate) in [("x", x), ("y", y)] {
        let digits = digits(coordinate);
        let too_long = Error::Number(name, "is longer than the curve allows");
        let pad = curve.size().checked_sub(digits.len()).ok_or(too_long)?;
        point.extend(std::iter::repeat_n(0, pad));
        point.extend(digits);
    }
    info(AlgorithmIdentifierRef { oid: EC, parameters: Some(AnyRef::from(&curve.oid())) }, &point)
}

fn info(algorithm: AlgorithmIdentifierRef<'_>, key: &[u8]) -> Result<Vec<u8>, Error> {
    let too_long = |_| Error::Number("n", "is too long");
    let subject_public_key = BitStringRef::from_bytes(key).map_err(too_long)?;
    SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().map_err(too_long)
}

/// A number in base64url; accepts padding, which Key Vault omits.
fn number(name: &'static str, member: Option<&str>) -> Result<Vec<u8>, Error> {
    let text = member.filter(|text| !text.is_empty()).ok_or(Error::Missing(name))?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| Error::Number(name, "is not base64url"))
}

fn digits(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn shown(word: &str) -> String {
    word.chars().take(SHOWN).collect()
}
