//! Converts the secrets that belong to certificates, where that keeps nobody from his work, and only when it has to be
//! done.
//!
//! `render` does it; what is expensive goes to `compute`, in the turn of the class's namespace. A value of which the
//! volume holds the files already is not converted again: they are read back and compared by digest. Refusals are
//! remembered, files never.

use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::encode::{Fault, RenderError};
use super::error::Error;
use super::object::{Format, ObjectSpec};
use super::render::{Fetched, FetchedSecret, Rendered, Rendering, names, render};
use crate::azure::keyvault::VaultSecret;
use crate::compute::{Compute, ResultCache};
use crate::formats::pkcs12::Work;
use crate::model::{ClassRef, Conversion, ExposeSecret as _, FileName, SecretBytes, SecretFile};

/// How long a value may be that is rendered on the spot, in bytes; beyond, taking PEM apart takes longer than other
/// work should wait.
const SHORT: usize = 16 << 10;

/// What a volume holds of an earlier fetch.
#[async_trait]
pub trait HeldFiles: Send + Sync {
    /// The digest of the files that a source was converted into, if the volume was written from them.
    fn converted(&self, source: &[u8; 32]) -> Option<[u8; 32]>;

    /// The content of these files as the volume has it; `None` where one of them is not there.
    async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>>;
}

/// What is known of conversions. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub(super) struct Conversions {
    compute: Compute,
    refused: Arc<ResultCache<Fault>>,
}

/// Converts what one fetch brings.
#[derive(Clone, Copy)]
pub(super) struct Converter<'a> {
    pub(super) conversions: &'a Conversions,
    pub(super) rendering: &'a Rendering,
    pub(super) class: &'a ClassRef,
    /// The vault's name as the class has it, for error texts.
    pub(super) vault_name: &'a str,
    pub(super) held: Option<&'a dyn HeldFiles>,
    pub(super) deadline: Instant,
}

/// The files of a value, and what they were converted from if that was expensive.
pub(super) struct Converted {
    pub(super) rendered: Rendered,
    pub(super) conversion: Option<Conversion>,
}

impl Conversions {
    /// Conversions of which nothing is known.
    pub(super) fn new(compute: Compute) -> Conversions {
        Conversions { compute, refused: Arc::default() }
    }
}

impl Converter<'_> {
    /// Renders what costs little.
    ///
    /// # Errors
    /// The value is not in the form that the class asks for.
    pub(super) fn plain(self, spec: &ObjectSpec, index: Option<usize>, value: Fetched<'_>) -> Result<Converted, Error> {
        let rendered = render(spec, index, value, self.rendering, &mut Work::default());
        Ok(Converted { rendered: rendered.map_err(|source| self.unfit(source))?, conversion: None })
    }

    /// Renders a secret.
    ///
    /// # Errors
    /// The value is not in the form that the class asks for, or was not converted in time.
    pub(super) async fn secret(
        self,
        spec: &ObjectSpec,
        index: Option<usize>,
        secret: &Arc<VaultSecret>,
    ) -> Result<Converted, Error> {
        if !is_expensive(spec, secret, self.rendering) {
            return self.plain(spec, index, fetched(secret));
        }
        let source = self.source(spec, index, secret);
        if let Some(files) = self.held_files(spec, index, &source).await {
            let rendered = Rendered { files, warnings: Vec::new() };
            return Ok(self.converted(source, rendered));
        }
        let Conversions { compute, refused } = self.conversions;
        let object = || spec.version_id(index);
        let namespace = &self.class.namespace;
        let outcome = match refused.get(namespace, &source) {
            Some(fault) => Err(RenderError { object: object(), fault }),
            None => {
                let prepare = || {
                    let (spec, rendering, secret) = (spec.clone(), *self.rendering, secret.clone());
                    move |work: &mut Work| render(&spec, index, fetched(&secret), &rendering, work)
                };
                let run = compute.run(namespace, self.deadline, prepare).await;
                run.map_err(|source| Error::Compute { class: self.class.clone(), what: object(), source })?
            }
        };
        let rendered = outcome.map_err(|error| {
            if error.fault.is_too_expensive() {
                compute.count_too_expensive();
            }
            refused.put(namespace, source, error.fault.clone());
            self.unfit(error)
        })?;
        Ok(self.converted(source, rendered))
    }

    /// All that decides what becomes of a value.
    fn source(&self, spec: &ObjectSpec, index: Option<usize>, secret: &VaultSecret) -> [u8; 32] {
        // Each field of them, whatever is added.
        let options = format!("{spec:?} {index:?} {:?} {:?}", self.rendering, secret.content_type);
        self.conversions.compute.digest(&[options.as_bytes(), secret.value.expose_secret().as_bytes()])
    }

    /// The files that the volume holds of this source.
    async fn held_files(&self, spec: &ObjectSpec, index: Option<usize>, source: &[u8; 32]) -> Option<Vec<SecretFile>> {
        let held = self.held?;
        let wanted = held.converted(source)?;
        let names = names(spec, index, self.rendering).ok()?;
        let contents = held.read(names.clone()).await?;
        let mode = self.rendering.mode(spec);
        let files = names.into_iter().zip(contents).map(|(name, content)| SecretFile { name, mode, content });
        let files: Vec<SecretFile> = files.collect();
        (files_digest(&files) == wanted).then_some(files)
    }

    fn converted(&self, source: [u8; 32], rendered: Rendered) -> Converted {
        let conversion = Some(Conversion { source, files: files_digest(&rendered.files) });
        Converted { rendered, conversion }
    }

    fn unfit(&self, source: RenderError) -> Error {
        Error::Render { class: self.class.clone(), vault: self.vault_name.to_owned(), source }
    }
}

/// Whether rendering asks for key derivations, or takes apart a long text.
fn is_expensive(spec: &ObjectSpec, secret: &VaultSecret, rendering: &Rendering) -> bool {
    let archive = secret.content_type.as_deref() == Some(super::certificate::PKCS12) && spec.format == Format::Pem;
    let long = rendering.separate_files && secret.value.expose_secret().len() > SHORT;
    secret.certificate_backed && (archive || long)
}

fn fetched(secret: &VaultSecret) -> Fetched<'_> {
    Fetched::Secret(FetchedSecret {
        value: &secret.value,
        content_type: secret.content_type.as_deref(),
        certificate_backed: secret.certificate_backed,
    })
}

/// One digest of names, modes and bytes.
fn files_digest(files: &[SecretFile]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for SecretFile { name, mode, content } in files {
        // The length in front keeps neighbours apart.
        for part in [name.as_str().as_bytes(), &mode.bits().to_be_bytes(), content.expose_secret()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}
