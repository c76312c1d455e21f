//! The order of a certificate chain: the server's certificate first, then each issuer.
//!
//! Compares key identifiers only, never names, signatures or dates, exactly as upstream does
//! (docs/reference/azure-provider.md#chain-order), so the order proves nothing.

use std::collections::{HashMap, HashSet};

use der::asn1::{ContextSpecific, ObjectIdentifier, OctetStringRef};
use der::{AnyRef, Decode, SliceReader, TagNumber};
use x509_cert::certificate::{CertificateInner, Raw};

const SUBJECT_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// Why certificates cannot be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input is empty.
    #[error("no leaf found: there is no certificate at all")]
    Empty,
    /// Each certificate is the issuer of another one.
    #[error("no leaf found: each of the {0} certificates is, by its key identifier, the issuer of another")]
    NoLeaf(usize),
    /// The issuers of the server's certificate repeat.
    #[error("the issuers of the server's certificate form a cycle, by their key identifiers")]
    Cycle,
}

/// Certificates as indices into the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// One chain of all certificates, the server's first.
    Chain(Vec<usize>),
    /// They do not form one chain: all of them in the order of the input. The caller should warn.
    AsGiven(Vec<usize>),
}

/// The key identifiers of a certificate; empty ones count as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identifiers {
    /// Of its own key.
    pub subject: Option<Vec<u8>>,
    /// Of its issuer's key.
    pub authority: Option<Vec<u8>>,
}

impl Identifiers {
    /// Reads a certificate in DER. One that cannot be parsed has no identifiers, so it belongs to
    /// no chain.
    ///
    /// Upstream refuses the whole secret then, although the program that reads the file may
    /// understand it.
    pub fn of(der: &[u8]) -> Identifiers {
        let Ok(certificate) = CertificateInner::<Raw>::from_der(der) else {
            return Identifiers::default();
        };
        let extensions = certificate.tbs_certificate().extensions().map_or(&[][..], Vec::as_slice);
        let value =
            |oid| extensions.iter().find(|extension| extension.extn_id == oid).map(|found| found.extn_value.as_bytes());
        Identifiers {
            subject: value(SUBJECT_KEY).and_then(subject_key).filter(|id| !id.is_empty()),
            authority: value(AUTHORITY_KEY).and_then(authority_key).filter(|id| !id.is_empty()),
        }
    }
}

/// Orders certificates: server, intermediates, root.
///
/// The issuer of a certificate is the first other certificate whose key identifier matches; the
/// server's certificate is the first that issued no other.
///
/// # Errors
/// Each certificate issued another one, or the issuers form a cycle: two copies of a root can cause
/// both.
pub fn order(certificates: &[Identifiers]) -> Result<Order, Error> {
    if certificates.is_empty() {
        return Err(Error::Empty);
    }
    let issuers = issuers(certificates);
    let issued: HashSet<usize> = issuers.iter().copied().flatten().collect();
    let leaf = (0..certificates.len()).find(|at| !issued.contains(at));
    let mut chain = Vec::new();
    let mut next = Some(leaf.ok_or(Error::NoLeaf(certificates.len()))?);
    while let Some(at) = next {
        if chain.len() == certificates.len() {
            return Err(Error::Cycle);
        }
        chain.push(at);
        next = issuers[at];
    }
    Ok(match chain.len() == certificates.len() {
        true => Order::Chain(chain),
        false => Order::AsGiven((0..certificates.len()).collect()),
    })
}

/// The issuer of each certificate, if present; in linear time, since a file may hold thousands.
fn issuers(certificates: &[Identifiers]) -> Vec<Option<usize>> {
    // The second index is the issuer of a certificate that names itself.
    let mut owners: HashMap<&[u8], (usize, Option<usize>)> = HashMap::new();
    for (at, subject) in certificates.iter().enumerate().filter_map(|(at, of)| Some((at, of.subject.as_deref()?))) {
        owners.entry(subject).and_modify(|(_, second)| *second = second.or(Some(at))).or_insert((at, None));
    }
    let issuer = |(at, of): (usize, &Identifiers)| {
        let (first, second) = *owners.get(of.authority.as_deref()?)?;
        if first == at { second } else { Some(first) }
    };
    certificates.iter().enumerate().map(issuer).collect()
}

fn subject_key(value: &[u8]) -> Option<Vec<u8>> {
    <&OctetStringRef>::from_der(value).ok().map(|id| id.as_bytes().to_vec())
}

/// Reads the first field only, and not the issuer and serial number that may follow.
fn authority_key(value: &[u8]) -> Option<Vec<u8>> {
    let fields = AnyRef::from_der(value).ok()?;
    let mut reader = SliceReader::new(fields.value()).ok()?;
    let id = ContextSpecific::<&OctetStringRef>::decode_implicit(&mut reader, TagNumber(0)).ok()??;
    Some(id.value.as_bytes().to_vec())
}
