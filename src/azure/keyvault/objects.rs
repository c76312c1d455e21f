//! Pure. What a vault answers about keys, certificates and versions, in our own terms.
//!
//! Read by hand and not by the SDK's models: it is four small JSON objects, of which only some fields are wanted. Nothing here is
//! secret, and nothing is believed that was not asked for. Control goes back to `vault`.

use azure_security_keyvault_secrets::ResourceExt as _;
use azure_security_keyvault_secrets::models::Secret;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use url::Url;

use super::challenge::ObjectType;
use super::names::ObjectName;
use super::vault::VaultSecret;

/// The longest version id that is taken over from an answer. Key Vault's own have 32 characters.
const LONGEST_VERSION: usize = 64;

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
    /// Its version: a concrete one, also where the newest was asked for.
    pub version: String,
    /// When it expires, in seconds since 1970, if the vault says so.
    pub expires: Option<i64>,
}

/// A certificate, as Key Vault holds it (docs/reference/azure-provider.md#certificates).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultCertificate {
    /// The certificate alone, without its chain; not looked into.
    pub der: Vec<u8>,
    /// Its version: a concrete one, also where the newest was asked for.
    pub version: String,
    /// When it expires, in seconds since 1970, if the vault says so.
    pub expires: Option<i64>,
}

/// One version of an object, as a list names it (docs/reference/azure-provider.md#versions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its id.
    pub version: String,
    /// Whether it can be used, if the vault says so.
    pub enabled: Option<bool>,
    /// When it was made, in seconds since 1970, if the vault says so.
    pub created: Option<i64>,
    /// Whether the vault says anything about it.
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

/// Says what is wrong with an answer; never a part of it.
type Read<T> = Result<T, &'static str>;

/// Moves the SDK's secret into our own; says what is wrong when it is not the one that was asked for.
pub(super) fn secret(secret: Secret, name: &ObjectName) -> Read<VaultSecret> {
    let id = secret.resource_id().map_err(|_| "the secret has no id")?;
    if !id.name.eq_ignore_ascii_case(name.as_str()) {
        return Err("the secret is another than the one that was asked for");
    }
    Ok(VaultSecret {
        expires: secret.attributes.and_then(|attributes| Some(attributes.expires?.unix_timestamp())),
        version: id.version.filter(|text| is_version(text)).ok_or("the secret's id names no version")?,
        value: secret.value.ok_or("the secret has no value")?.into(),
        content_type: secret.content_type,
        certificate_backed: secret.kid.is_some_and(|kid| !kid.is_empty()),
    })
}

/// Reads the answer about a key.
pub(super) fn key(body: &[u8], name: &ObjectName) -> Read<VaultKey> {
    let KeyBundle { key, attributes } = parse(body)?;
    let key = key.ok_or("the answer holds no key")?;
    let number = |text: Option<String>| {
        let bytes = text.map(|text| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')));
        bytes.transpose().map_err(|_| "a number of the key is not in base64")
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

/// Reads the answer about a certificate.
pub(super) fn certificate(body: &[u8], name: &ObjectName) -> Read<VaultCertificate> {
    let certificate: CertificateBundle = parse(body)?;
    let text = certificate.cer.filter(|cer| !cer.is_empty());
    let text = text.ok_or("the certificate has no content; it may be pending or disabled")?;
    Ok(VaultCertificate {
        expires: certificate.attributes.as_ref().and_then(|attributes| attributes.exp),
        version: version(certificate.id.as_deref(), ObjectType::Certificate, name)?,
        der: BASE64_STANDARD.decode(text).map_err(|_| "the certificate's content is not in base64")?,
    })
}

/// Reads one page of a list of versions, and where the next one is.
pub(super) fn versions(body: &[u8], kind: ObjectType, name: &ObjectName) -> Read<(Vec<VersionInfo>, Option<String>)> {
    let page: Page = parse(body)?;
    let items = page.value.ok_or("the list holds no versions")?.into_iter().map(|item| {
        let id = match kind {
            ObjectType::Key => item.kid,
            ObjectType::Secret | ObjectType::Certificate => item.id,
        };
        Ok(VersionInfo {
            version: version(id.as_deref(), kind, name)?,
            has_attributes: item.attributes.is_some(),
            enabled: item.attributes.as_ref().and_then(|attributes| attributes.enabled),
            created: item.attributes.and_then(|attributes| attributes.created),
        })
    });
    Ok((items.collect::<Read<_>>()?, page.next.filter(|next| !next.is_empty())))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Read<T> {
    serde_json::from_slice(body).map_err(|_| "the answer has another shape")
}

/// The version in an id like `https://<vault>/<collection>/<name>/<version>`.
fn version(id: Option<&str>, kind: ObjectType, name: &ObjectName) -> Read<String> {
    let url = id.and_then(|id| Url::parse(id).ok()).ok_or("the object has no id")?;
    let segments: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    match segments[..] {
        [collection, found, version]
            if collection == kind.collection() && found.eq_ignore_ascii_case(name.as_str()) && is_version(version) =>
        {
            Ok(version.to_owned())
        }
        [collection, found, ..] if collection == kind.collection() && found.eq_ignore_ascii_case(name.as_str()) => {
            Err("the object's id names no version")
        }
        _ => Err("the object is another than the one that was asked for"),
    }
}

fn is_version(text: &str) -> bool {
    (1..=LONGEST_VERSION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
