//! The secret of a certificate: converts its value to PEM or PFX, and splits PEM into certificates
//! and the rest.
//!
//! Pure. The vault's content type decides how the value is read, not its first bytes
//! (docs/reference/azure-provider.md#certificate-secrets, docs/reference/azure-provider.md#pkcs12).

use zeroize::Zeroizing;

use super::encode::RenderFault;
use super::object::Format;
use super::warning::Finding;
use crate::formats::chain::{self, Identifiers, Order};
use crate::formats::pem::{self, Block, Text};
use crate::formats::pkcs12::{self, Work};

const PEM: &str = "application/x-pem-file";
/// The content type of an archive.
pub(super) const PKCS12: &str = "application/x-pkcs12";

/// The value of a certificate's secret, in the form that the class asks for.
pub(super) struct Form {
    /// The text, before objectEncoding is applied.
    pub(super) text: Text,
    /// Whether it is PEM, and not the base64 of an archive.
    pub(super) pem: bool,
    /// What the user should know.
    pub(super) findings: Vec<Finding>,
}

/// Converts a value to the form that the class asks for.
///
/// PEM is never converted or sorted, even if the class asks for PFX
/// (docs/reference/azure-provider.md#certificate-secrets).
///
/// # Errors
/// A content type other than the two of certificates, an archive that cannot be read, or
/// certificates without order.
pub(super) fn form(
    value: &str,
    content_type: Option<&str>,
    format: Format,
    construct_pem_chain: bool,
    work: &mut Work,
) -> Result<Form, RenderFault> {
    let as_it_is = || Zeroizing::new(value.to_owned());
    match (content_type, format) {
        (Some(PEM), Format::Pem) => Ok(Form { text: as_it_is(), pem: true, findings: Vec::new() }),
        (Some(PEM), Format::Pfx) => Ok(Form { text: as_it_is(), pem: true, findings: vec![Finding::StaysPem] }),
        (Some(PKCS12), Format::Pfx) => Ok(Form { text: as_it_is(), pem: false, findings: Vec::new() }),
        (Some(PKCS12), Format::Pem) => convert(value, construct_pem_chain, work),
        (other, _) => Err(RenderFault::ContentType(other.map(str::to_owned))),
    }
}

/// The archive as PEM: all keys, then all certificates.
fn convert(value: &str, construct_pem_chain: bool, work: &mut Work) -> Result<Form, RenderFault> {
    let archive = pkcs12::read_base64(value, "", work)?;
    let mut findings = Vec::new();
    if archive.keys.is_empty() {
        findings.push(Finding::NoPrivateKey);
    }
    let mut order: Vec<usize> = (0..archive.certificates.len()).collect();
    if construct_pem_chain {
        let identifiers: Vec<_> = archive.certificates.iter().map(|der| Identifiers::of(der)).collect();
        order = match chain::order(&identifiers)? {
            Order::Chain(order) => order,
            Order::AsGiven(order) => {
                findings.push(Finding::ChainNotOrdered);
                order
            }
        };
    }
    let keys = archive.keys.iter().map(|der| Block::new(pem::PRIVATE_KEY, der));
    let certificates = order.iter().filter_map(|at| archive.certificates.get(*at));
    let blocks: Vec<Block> = keys.chain(certificates.map(|der| Block::new(pem::CERTIFICATE, der))).collect();
    Ok(Form { text: pem::encode(&blocks), pem: true, findings })
}

/// The text of each half of a PEM text.
pub(super) struct Halves {
    /// The certificates.
    pub(super) certificates: Text,
    /// Everything else.
    pub(super) rest: Text,
    /// How many blocks cannot be read and are in neither half.
    pub(super) damaged: usize,
}

/// Splits PEM; both halves of a text without blocks are empty
/// (docs/reference/azure-provider.md#separate-files).
pub(super) fn halves(text: &str) -> Halves {
    let parsed = pem::parse(text);
    let half = |certificates| pem::encode(parsed.blocks.iter().filter(move |one| one.is_certificate() == certificates));
    Halves { certificates: half(true), rest: half(false), damaged: parsed.damaged }
}
