//! Renders one version of an object: from the vault's value to the files of a volume.
//!
//! Pure. Fetches nothing and does not choose versions (docs/reference/azure-provider.md#rendering).

use super::certificate;
use super::encode::{RenderError, RenderFault, decode};
use super::object::{Encoding, ObjectSpec};
use super::warning::{Finding, Warning};
use crate::formats::jwk::{self, Jwk};
use crate::formats::pem::{self, Block};
use crate::formats::pkcs12::Work;
use crate::model::{ExposeSecret, FileMode, FileName, SecretBytes, SecretFile, SecretString};

/// The suffixes of the separate files of a certificate.
const CERTIFICATE: &str = ".crt";
const KEY: &str = ".key";

/// The vault's value of one version of an object.
#[derive(Debug, Clone, Copy)]
pub enum ObjectValue<'a> {
    /// A secret.
    Secret(SecretValue<'a>),
    /// The public half of a key.
    Key(Jwk<'a>),
    /// A certificate in DER, the vault's `cer`; it is not parsed.
    Certificate(&'a [u8]),
}

/// The vault's value of a secret.
#[derive(Debug, Clone, Copy)]
pub struct SecretValue<'a> {
    /// Its value.
    pub value: &'a SecretString,
    /// Its content type, which has a meaning only if the secret belongs to a certificate.
    pub content_type: Option<&'a str>,
    /// Whether it belongs to a certificate: the vault's answer has a `kid`.
    pub certificate_backed: bool,
}

/// How objects are rendered, the same for all objects of a process or mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendering {
    /// `--construct-pem-chain`: sort the certificates of an archive, server first.
    pub construct_pem_chain: bool,
    /// `--write-cert-and-key-in-separate-files`: also write `.crt` and `.key` for certificates'
    /// secrets.
    pub separate_files: bool,
    /// The mode of files that have none of their own.
    pub default_mode: FileMode,
}

impl Rendering {
    /// The mode of an object's files.
    pub(super) fn mode(&self, spec: &ObjectSpec) -> FileMode {
        spec.mode.unwrap_or(self.default_mode)
    }
}

/// The files of one version of an object, in upstream's order.
#[derive(Debug)]
pub struct Rendered {
    /// One file, or `.crt`, `.key` and the file itself.
    pub files: Vec<SecretFile>,
    /// What the user should know although rendering succeeded.
    pub warnings: Vec<Warning>,
}

/// Renders one version of an object; `index` is its place in history mode, and becomes the last
/// part of the path.
///
/// An archive may take up to a second of CPU time; `work` limits it.
///
/// # Errors
/// See [`RenderFault`]: the value does not match its content type, or the encoding of the class.
pub fn render(
    spec: &ObjectSpec,
    index: Option<usize>,
    fetched: ObjectValue<'_>,
    rendering: &Rendering,
    work: &mut Work,
) -> Result<Rendered, RenderError> {
    let object = spec.version_id(index);
    let mut findings = Vec::new();
    let files = files(spec, index, fetched, rendering, &mut findings, work)
        .map_err(|fault| RenderError { object: object.clone(), fault })?;
    let warnings = findings.into_iter().map(|finding| Warning { object: object.clone(), finding }).collect();
    Ok(Rendered { files, warnings })
}

fn files(
    spec: &ObjectSpec,
    index: Option<usize>,
    fetched: ObjectValue<'_>,
    rendering: &Rendering,
    findings: &mut Vec<Finding>,
    work: &mut Work,
) -> Result<Vec<SecretFile>, RenderFault> {
    let (base, mode) = (base(spec, index)?, rendering.mode(spec));
    let file = |name: &FileName, text: &str, encoding, pem| -> Result<SecretFile, RenderFault> {
        let mut bytes = decode(text, encoding, pem)?;
        // The buffer moves out of its wrapper, so that no copy is left to wipe.
        let content = SecretBytes::from(std::mem::take(&mut *bytes));
        Ok(SecretFile { name: name.clone(), mode, content })
    };
    // Only secrets have an encoding; `ObjectSpec` cannot hold another one for the other types.
    let block = |label, der: &[u8]| file(&base, &pem::encode(&[Block::new(label, der)]), Encoding::Utf8, true);
    let secret = match fetched {
        ObjectValue::Key(key) => return Ok(vec![block(pem::PUBLIC_KEY, &jwk::public_key(&key)?)?]),
        ObjectValue::Certificate(der) => return Ok(vec![block(pem::CERTIFICATE, der)?]),
        ObjectValue::Secret(secret) => secret,
    };
    let value = secret.value.expose_secret();
    if !secret.certificate_backed {
        return Ok(vec![file(&base, value, spec.encoding, false)?]);
    }
    let form = certificate::form(value, secret.content_type, spec.format, rendering.construct_pem_chain, work)?;
    findings.extend(form.findings);
    let mut files = Vec::new();
    if rendering.separate_files {
        let halves = certificate::halves(&form.text);
        if !form.pem {
            findings.push(Finding::EmptyHalves);
        } else if halves.damaged > 0 {
            findings.push(Finding::DamagedBlocks(halves.damaged));
        }
        files.push(file(&appended(&base, CERTIFICATE)?, &halves.certificates, spec.encoding, form.pem)?);
        files.push(file(&appended(&base, KEY)?, &halves.rest, spec.encoding, form.pem)?);
    }
    files.push(file(&base, &form.text, spec.encoding, form.pem)?);
    Ok(files)
}

/// The names of the files of a certificate's secret, in the order of [`render`].
///
/// # Errors
/// [`RenderFault::FileName`].
pub(super) fn names(
    spec: &ObjectSpec,
    index: Option<usize>,
    rendering: &Rendering,
) -> Result<Vec<FileName>, RenderFault> {
    let base = base(spec, index)?;
    Ok(match rendering.separate_files {
        true => vec![appended(&base, CERTIFICATE)?, appended(&base, KEY)?, base],
        false => vec![base],
    })
}

fn base(spec: &ObjectSpec, index: Option<usize>) -> Result<FileName, RenderFault> {
    match index {
        None => Ok(spec.file.clone()),
        Some(index) => appended(&spec.file, &format!("/{index}")),
    }
}

fn appended(file: &FileName, what: &str) -> Result<FileName, RenderFault> {
    let name = FileName::new(&format!("{}{what}", file.as_str()));
    name.map_err(|source| RenderFault::FileName { appended: what.to_owned(), source })
}
