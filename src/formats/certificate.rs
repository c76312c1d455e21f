//! One X.509 certificate: the few facts of it that somebody asks for.
//!
//! Checks no signature and trusts nothing; `chain` orders several. `provider` asks whether a key belongs to it, and
//! `keyvault` until when it counts and which names it has.

use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
    /// The public key's own bytes; for RSA, modulus and exponent as in PKCS#1.
    pub public_key: Vec<u8>,
    /// The DNS names that it is for.
    pub dns_names: Vec<String>,
}

impl Facts {
    /// Reads a certificate in DER; `None` when it is none.
    pub fn of(der: &[u8]) -> Option<Facts> {
        let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let extensions = content.extensions().map_or(&[][..], Vec::as_slice);
        let names = extensions.iter().find(|one| one.extn_id == SUBJECT_ALT_NAME);
        let names = names.and_then(|one| SubjectAltName::from_der(one.extn_value.as_bytes()).ok());
        let dns = names.into_iter().flat_map(|names| names.0).filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            GeneralName::OtherName(_)
            | GeneralName::Rfc822Name(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EdiPartyName(_)
            | GeneralName::UniformResourceIdentifier(_)
            | GeneralName::IpAddress(_)
            | GeneralName::RegisteredId(_) => None,
        });
        Some(Facts {
            not_after: content.validity().not_after.to_unix_duration().as_secs(),
            public_key: content.subject_public_key_info().subject_public_key.raw_bytes().to_vec(),
            dns_names: dns.collect(),
        })
    }
}
