//! Pure. The objects of a vault in our own types, read from its responses.
//!
//! The SDK has no models of keys and certificates here: they are four small JSON objects, of which
//! some fields are read. A response about another object than the requested one is an error.

use azure_security_keyvault_secrets::ResourceExt as _;
use azure_security_keyvault_secrets::models::Secret;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use url::Url;

use super::names::ObjectName;
use super::object_type::ObjectType;
use crate::model::SecretString;

/// The longest version id that is accepted. Key Vault's own have 32 characters.
const MAX_VERSION_LENGTH: usize = 64;

/// A secret, as Key Vault holds it.
#[derive(Debug)]
pub struct VaultSecret {
    /// Not decoded.
    pub value: SecretString,
    /// Its concrete version, also if the newest was requested.
    pub version: String,
    /// As its owner describes the value.
    pub content_type: Option<String>,
    /// Its expiration, in seconds since 1970, if the vault has one.
    pub expires: Option<i64>,
    /// Whether it is the private side of a certificate
    /// (docs/reference/azure-provider.md#certificate-secrets).
    pub certificate_backed: bool,
}

/// The public half of a key, as Key Vault holds it (docs/reference/azure-provider.md#keys). Numbers
/// are big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultKey {
    /// Its type, for example `RSA` or `EC-HSM`.
    pub kty: String,
    /// The modulus of an RSA key.
    pub n: Option<Vec<u8>>,
    /// The public exponent of an RSA key.
    pub e: Option<Vec<u8>>,
    /// The name of an elliptic curve.
    pub crv: Option<String>,
    /// The x coordinate on the curve.
    pub x: Option<Vec<u8>>,
    /// The y coordinate on the curve.
    pub y: Option<Vec<u8>>,
    /// Its concrete version, also if the newest was requested.
    pub version: String,
    /// Its expiration, in seconds since 1970, if the vault has one.
    pub expires: Option<i64>,
}

/// A certificate, as Key Vault holds it (docs/reference/azure-provider.md#certificates).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultCertificate {
    /// The certificate without its chain; not parsed.
    pub der: Vec<u8>,
    /// Its concrete version, also if the newest was requested.
    pub version: String,
    /// Its expiration, in seconds since 1970, if the vault has one.
    pub expires: Option<i64>,
}

/// One version of an object, as a list names it (docs/reference/azure-provider.md#versions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its id.
    pub version: String,
    /// Whether it is enabled, if the vault says so.
    pub enabled: Option<bool>,
    /// Its creation, in seconds since 1970, if the vault has it.
    pub created: Option<i64>,
    /// Whether the list has attributes of it.
    pub has_attributes: bool,
}

#[derive(Deserialize)]
struct KeyBundle {
    attributes: Option<Attributes>,
    key: Option<WebKey>,
}

#[derive(Deserialize)]
struct WebKey {
    kid: Option<String>,
    kty: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct CertificateBundle {
    id: Option<String>,
    cer: Option<String>,
    attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct Page {
    value: Option<Vec<Item>>,
    #[serde(rename = "nextLink")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    id: Option<String>,
    kid: Option<String>,
    attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct Attributes {
    enabled: Option<bool>,
    created: Option<i64>,
    exp: Option<i64>,
}

/// The error says what is wrong with a response, and never quotes it.
type Read<T> = Result<T, &'static str>;

pub(super) fn secret(secret: Secret, name: &ObjectName) -> Read<VaultSecret> {
    let id = secret.resource_id().map_err(|_| "the secret has no id")?;
    if !id.name.eq_ignore_ascii_case(name.as_str()) {
        return Err("the secret is not the requested one");
    }
    Ok(VaultSecret {
        expires: secret.attributes.and_then(|attributes| Some(attributes.expires?.unix_timestamp())),
        version: id.version.filter(|text| is_version(text)).ok_or("the secret's id names no version")?,
        value: secret.value.ok_or("the secret has no value")?.into(),
        content_type: secret.content_type,
        certificate_backed: secret.kid.is_some_and(|kid| !kid.is_empty()),
    })
}

pub(super) fn key(body: &[u8], name: &ObjectName) -> Read<VaultKey> {
    let KeyBundle { key, attributes } = parse(body)?;
    let key = key.ok_or("the answer holds no key")?;
    let number = |text: Option<String>| {
        let bytes = text.map(|text| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')));
        bytes.transpose().map_err(|_| "a number of the key is not base64")
    };
    Ok(VaultKey {
        expires: attributes.and_then(|attributes| attributes.exp),
        version: version(key.kid.as_deref(), ObjectType::Key, name)?,
        kty: key.kty.filter(|kty| !kty.is_empty()).ok_or("the key has no type")?,
        n: number(key.n)?,
        e: number(key.e)?,
        crv: key.crv,
        x: number(key.x)?,
        y: number(key.y)?,
    })
}

pub(super) fn certificate(body: &[u8], name: &ObjectName) -> Read<VaultCertificate> {
    let certificate: CertificateBundle = parse(body)?;
    let text = certificate.cer.filter(|cer| !cer.is_empty());
    let text = text.ok_or("the certificate has no content; it may be pending or disabled")?;
    Ok(VaultCertificate {
        expires: certificate.attributes.as_ref().and_then(|attributes| attributes.exp),
        version: version(certificate.id.as_deref(), ObjectType::Certificate, name)?,
        der: BASE64_STANDARD.decode(text).map_err(|_| "the certificate's content is not base64")?,
    })
}

/// One page of a list of versions, and the link to the next one.
pub(super) fn versions(
    body: &[u8],
    object_type: ObjectType,
    name: &ObjectName,
) -> Read<(Vec<VersionInfo>, Option<String>)> {
    let page: Page = parse(body)?;
    let items = page.value.ok_or("the list holds no versions")?.into_iter().map(|item| {
        let id = match object_type {
            ObjectType::Key => item.kid,
            ObjectType::Secret | ObjectType::Certificate => item.id,
        };
        Ok(VersionInfo {
            version: version(id.as_deref(), object_type, name)?,
            has_attributes: item.attributes.is_some(),
            enabled: item.attributes.as_ref().and_then(|attributes| attributes.enabled),
            created: item.attributes.and_then(|attributes| attributes.created),
        })
    });
    Ok((items.collect::<Read<_>>()?, page.next.filter(|next| !next.is_empty())))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Read<T> {
    serde_json::from_slice(body).map_err(|_| "the answer has another format")
}

/// The version in an id like `https://<vault>/<collection>/<name>/<version>`.
fn version(id: Option<&str>, object_type: ObjectType, name: &ObjectName) -> Read<String> {
    let url = id.and_then(|id| Url::parse(id).ok()).ok_or("the object has no id")?;
    let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    match segments[..] {
        [collection, found, version]
            if collection == object_type.collection()
                && found.eq_ignore_ascii_case(name.as_str())
                && is_version(version) =>
        {
            Ok(version.to_owned())
        }
        [collection, found, ..]
            if collection == object_type.collection() && found.eq_ignore_ascii_case(name.as_str()) =>
        {
            Err("the object's id names no version")
        }
        _ => Err("the object is not the requested one"),
    }
}

fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
