//! The contents of secrets, keys and certificates.
//!
//! Pure: it parses certificates and keys and generates none. `vault` stores them, and
//! `keyvault::wire` encodes them as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::error::{SetupError, invalid};

/// The content type of a secret whose value is a base64 PKCS#12 document.
pub(crate) const PKCS12: &str = "application/x-pkcs12";

/// The content type of a secret whose value is PEM.
pub(crate) const PEM: &str = "application/x-pem-file";

/// The three kinds of objects that a vault holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A secret, with a value.
    #[serde(alias = "secrets")]
    Secret,
    /// A key, of which only the public half leaves the vault.
    #[serde(alias = "keys")]
    Key,
    /// A certificate, with a secret and a key of the same name and version.
    #[serde(alias = "certificates")]
    Certificate,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [ObjectKind; 3] = [ObjectKind::Secret, ObjectKind::Key, ObjectKind::Certificate];

    /// The first segment of the paths of such objects.
    pub(crate) fn collection(self) -> &'static str {
        match self {
            ObjectKind::Secret => "secrets",
            ObjectKind::Key => "keys",
            ObjectKind::Certificate => "certificates",
        }
    }

    /// The noun in error texts.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            ObjectKind::Secret => "secret",
            ObjectKind::Key => "key",
            ObjectKind::Certificate => "certificate",
        }
    }
}

/// The public half of a key as Key Vault sends it; numbers are base64url without padding.
///
/// Nothing is checked, so that a test can set a key that no real vault has: an empty `kty` is not
/// sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Jwk {
    /// `RSA`, `RSA-HSM`, `EC`, `EC-HSM`, `oct` or `oct-HSM`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kty: String,
    /// The modulus of an RSA key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The exponent of an RSA key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// The curve: `P-256`, `P-384`, `P-521` or `P-256K`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The first coordinate of a point on the curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The second coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The permitted operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_ops: Vec<String>,
}

impl Jwk {
    /// An RSA key.
    pub fn rsa(n: &str, e: &str) -> Jwk {
        let key_ops = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"];
        Jwk { n: Some(n.to_owned()), e: Some(e.to_owned()), ..Jwk::of_type("RSA", &key_ops) }
    }

    /// An elliptic curve key.
    pub fn ec(crv: &str, x: &str, y: &str) -> Jwk {
        let own = |text: &str| Some(text.to_owned());
        Jwk { crv: own(crv), x: own(x), y: own(y), ..Jwk::of_type("EC", &["sign", "verify"]) }
    }

    /// A symmetric key, which has no public half.
    pub fn oct() -> Jwk {
        Jwk::of_type("oct-HSM", &["encrypt", "decrypt", "wrapKey", "unwrapKey"])
    }

    /// The same key under another type: `key.with_kty("RSA-HSM")`.
    #[must_use]
    pub fn with_kty(mut self, kty: &str) -> Jwk {
        self.kty = kty.to_owned();
        self
    }

    /// The key in a SubjectPublicKeyInfo in DER, as `openssl pkey -pubout -outform DER` writes it.
    pub fn of_spki(der: &[u8]) -> Result<Jwk, SetupError> {
        let parsed = SubjectPublicKeyInfo::from_der(der);
        let (_, spki) = parsed.map_err(|_| invalid("public key", "", "a SubjectPublicKeyInfo in DER"))?;
        jwk_of(&spki)
    }

    /// The public key of a certificate in DER.
    pub fn of_certificate(der: &[u8]) -> Result<Jwk, SetupError> {
        jwk_of(parse_certificate(der)?.public_key())
    }

    fn of_type(kty: &str, key_ops: &[&str]) -> Jwk {
        let key_ops = key_ops.iter().map(|&name| name.to_owned()).collect();
        Jwk { kty: kty.to_owned(), key_ops, ..Jwk::default() }
    }
}

/// The contents of a version of a certificate, and of its secret and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMaterial {
    /// The certificate; any bytes are accepted, since clients of Key Vault need not parse them.
    pub der_leaf: Vec<u8>,
    /// The value of the secret: PEM, or the base64 of a PKCS#12 document.
    pub secret_value: String,
    /// `application/x-pem-file` or `application/x-pkcs12`; empty for none.
    pub secret_content_type: String,
    /// The public key.
    pub key: Jwk,
}

impl CertificateMaterial {
    /// From PEM with a private key and certificates, the leaf first.
    pub fn from_pem(pem: &str) -> Result<CertificateMaterial, SetupError> {
        let rule = "PEM with a private key and at least one certificate, the leaf first";
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
        let leaf = leaf.map_err(|_| invalid("certificate", "", rule))?.to_vec();
        if !pem.contains("PRIVATE KEY-----") {
            return Err(invalid("certificate", "", rule));
        }
        CertificateMaterial::with_leaf(leaf, pem.to_owned(), PEM)
    }

    /// From PKCS#12. The secret is the document itself if the password is empty, and otherwise the
    /// same key and chain without a password, as in Key Vault.
    pub fn from_pfx(pfx: &[u8], password: &str) -> Result<CertificateMaterial, SetupError> {
        let rule = "a PKCS#12 document with this password, one private key and its certificate";
        let refuse = || invalid("certificate", "", rule);
        let store = KeyStore::from_pkcs12(pfx, password, Pkcs12ImportPolicy::Relaxed).map_err(|_| refuse())?;
        let (_, chain) = store.private_key_chain().ok_or_else(refuse)?;
        let leaf = chain.certs().first().ok_or_else(refuse)?.as_der().to_vec();
        let stored = if password.is_empty() { pfx.to_vec() } else { store.writer("").write().map_err(|_| refuse())? };
        CertificateMaterial::with_leaf(leaf, STANDARD.encode(stored), PKCS12)
    }

    /// From PEM, from PEM in base64 as Microsoft's SDKs send it, or from PKCS#12 in base64.
    pub(crate) fn read(value: &str, password: &str) -> Option<CertificateMaterial> {
        const PEM_START: &str = "-----BEGIN";
        if value.contains(PEM_START) {
            return CertificateMaterial::from_pem(value).ok();
        }
        let bytes = STANDARD.decode(value).ok()?;
        match std::str::from_utf8(&bytes) {
            Ok(pem) if pem.contains(PEM_START) => CertificateMaterial::from_pem(pem).ok(),
            Ok(_) | Err(_) => CertificateMaterial::from_pfx(&bytes, password).ok(),
        }
    }

    fn with_leaf(
        der_leaf: Vec<u8>,
        secret_value: String,
        content_type: &str,
    ) -> Result<CertificateMaterial, SetupError> {
        let key = Jwk::of_certificate(&der_leaf)?;
        Ok(CertificateMaterial { der_leaf, secret_value, secret_content_type: content_type.to_owned(), key })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SecretContent {
    pub(crate) value: String,
    /// Whether it belongs to a certificate, and has a `kid`.
    pub(crate) managed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct KeyContent {
    pub(crate) jwk: Jwk,
    /// Whether it belongs to a certificate.
    pub(crate) managed: bool,
}

/// A certificate; a pending one has no DER.
#[derive(Debug, Clone)]
pub(crate) struct CertificateContent {
    pub(crate) der: Option<Vec<u8>>,
    pub(crate) kty: String,
}

pub(crate) fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, SetupError> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, certificate)| certificate).map_err(|_| invalid("certificate", "", "an X.509 certificate in DER"))
}

fn jwk_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Jwk, SetupError> {
    let parsed = spki.parsed().map_err(|_| invalid("public key", "", "an RSA or elliptic curve key"))?;
    if let PublicKey::RSA(key) = &parsed {
        let number = |bytes: &[u8]| {
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            URL_SAFE_NO_PAD.encode(&bytes[first..])
        };
        return Ok(Jwk::rsa(&number(key.modulus), &number(key.exponent)));
    }
    let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let (Some(crv), PublicKey::EC(point)) = (curve.as_ref().and_then(curve_name), &parsed) else {
        return Err(invalid("public key", "", "an RSA or elliptic curve key"));
    };
    // An uncompressed point is the byte 4 and two coordinates of the same length.
    let Some((&4, coordinates)) = point.data().split_first() else {
        return Err(invalid("public key", "", "a point that is not compressed"));
    };
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    Ok(Jwk::ec(crv, &URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y)))
}

fn curve_name(curve: &Oid<'_>) -> Option<&'static str> {
    let known = [
        (oid!(1.2.840.10045.3.1.7), "P-256"),
        (oid!(1.3.132.0.34), "P-384"),
        (oid!(1.3.132.0.35), "P-521"),
        (oid!(1.3.132.0.10), "P-256K"),
    ];
    known.iter().find(|(known, _)| known == curve).map(|(_, name)| *name)
}
