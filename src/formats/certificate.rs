//! One X.509 certificate: expiry, public key and DNS names.
//!
//! Verifies no signature, so the fields prove nothing. `chain` orders several certificates.

use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// The fields of a certificate that this program uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedCertificate {
    /// In seconds since 1970.
    pub not_after: u64,
    /// The content of the BIT STRING; for RSA, modulus and exponent as in PKCS#1.
    pub public_key: Vec<u8>,
    /// From the subject alternative names; the common name does not count.
    pub dns_names: Vec<String>,
}

impl ParsedCertificate {
    /// Parses DER; `None` if it is not a certificate.
    pub fn from_der(der: &[u8]) -> Option<ParsedCertificate> {
        let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let extensions = content.extensions().map_or(&[][..], Vec::as_slice);
        let names = extensions.iter().find(|extension| extension.extn_id == SUBJECT_ALT_NAME);
        let names = names.and_then(|names| SubjectAltName::from_der(names.extn_value.as_bytes()).ok());
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
        Some(ParsedCertificate {
            not_after: content.validity().not_after.to_unix_duration().as_secs(),
            public_key: content.subject_public_key_info().subject_public_key.raw_bytes().to_vec(),
            dns_names: dns.collect(),
        })
    }
}
