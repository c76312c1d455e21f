//! The ASN.1 structures of RFC 7292 (PKCS#12) and RFC 5652 (CMS) that occur in archives.
//!
//! The parent module interprets them. They borrow instead of copying, unlike those of the `pkcs12`
//! and `cms` crates, since they hold decrypted keys.

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{AnyRef, Sequence};
use pkcs12::MacData;
use spki::AlgorithmIdentifierRef;

/// RFC 7292, 4.
#[derive(Sequence)]
pub(super) struct Pfx<'a> {
    pub(super) version: u8,
    pub(super) auth_safe: ContentInfo<'a>,
    pub(super) mac: Option<MacData>,
}

/// RFC 5652, 3.
#[derive(Sequence)]
pub(super) struct ContentInfo<'a> {
    pub(super) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) content: AnyRef<'a>,
}

/// RFC 5652, 8; without attributes, which no program writes.
#[derive(Sequence)]
pub(super) struct EncryptedData<'a> {
    pub(super) version: u8,
    pub(super) content: EncryptedContent<'a>,
}

/// RFC 5652, 6.1.
#[derive(Sequence)]
pub(super) struct EncryptedContent<'a> {
    pub(super) content_type: ObjectIdentifier,
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) encrypted: Option<&'a OctetStringRef>,
}

/// RFC 7292, 4.2; the attributes (names and ids) are ignored.
#[derive(Sequence)]
pub(super) struct SafeBag<'a> {
    pub(super) id: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) value: AnyRef<'a>,
    pub(super) attributes: Option<AnyRef<'a>>,
}

/// RFC 7292, 4.2.3.
#[derive(Sequence)]
pub(super) struct CertificateBag<'a> {
    pub(super) id: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) certificate: &'a OctetStringRef,
}

/// RFC 5958, 3.
#[derive(Sequence)]
pub(super) struct EncryptedKey<'a> {
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) encrypted: &'a OctetStringRef,
}

/// RFC 8018, A.4.
#[derive(Sequence)]
pub(super) struct Pbes2Parameters<'a> {
    pub(super) kdf: AlgorithmIdentifierRef<'a>,
    pub(super) encryption: AlgorithmIdentifierRef<'a>,
}
