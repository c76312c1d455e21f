//! Converts the secrets of certificates: expensive conversions on the `compute` thread, and none
//! twice.
//!
//! A value whose files the volume already has is not converted again: they are read back and
//! compared by digest. Refusals are cached, files never.

use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::encode::{RenderError, RenderFault};
use super::error::Error;
use super::object::{Format, ObjectSpec};
use super::render::{ObjectValue, Rendered, Rendering, SecretValue, names, render};
use crate::azure::keyvault::VaultSecret;
use crate::compute::{Compute, ResultCache};
use crate::formats::pkcs12::Work;
use crate::model::{ClassRef, Conversion, ExposeSecret as _, FileName, SecretBytes, SecretFile};

/// The longest value that is rendered in an async task, in bytes: splitting longer PEM would delay
/// other tasks.
const SHORT: usize = 16 << 10;

/// The files that a volume has from an earlier fetch.
#[async_trait]
pub trait HeldFiles: Send + Sync {
    /// The digest of the files that a source was converted into, if the volume was written from
    /// them.
    fn converted(&self, source: &[u8; 32]) -> Option<[u8; 32]>;

    /// The content of these files; `None` if one of them is missing.
    async fn read(&self, names: Vec<FileName>) -> Option<Vec<SecretBytes>>;
}

/// The refused conversions. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub(super) struct Conversions {
    compute: Compute,
    refused: Arc<ResultCache<RenderFault>>,
}

/// Converts the values of one fetch.
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
    /// An empty cache.
    pub(super) fn new(compute: Compute) -> Conversions {
        Conversions { compute, refused: Arc::default() }
    }
}

impl Converter<'_> {
    /// Renders a value whose rendering is cheap.
    ///
    /// # Errors
    /// The value is not in the form that the class asks for.
    pub(super) fn plain(
        self,
        spec: &ObjectSpec,
        index: Option<usize>,
        value: ObjectValue<'_>,
    ) -> Result<Converted, Error> {
        let rendered = render(spec, index, value, self.rendering, &mut Work::default());
        Ok(Converted { rendered: rendered.map_err(|source| self.render_error(source))?, conversion: None })
    }

    /// Renders a secret.
    ///
    /// # Errors
    /// The value is not in the form that the class asks for, or is not converted before the
    /// deadline.
    pub(super) async fn secret(
        self,
        spec: &ObjectSpec,
        index: Option<usize>,
        secret: &Arc<VaultSecret>,
    ) -> Result<Converted, Error> {
        if !is_expensive(spec, secret, self.rendering) {
            return self.plain(spec, index, secret_value(secret));
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
                    move |work: &mut Work| render(&spec, index, secret_value(&secret), &rendering, work)
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
            self.render_error(error)
        })?;
        Ok(self.converted(source, rendered))
    }

    /// A digest of everything that decides how a value is rendered.
    fn source(&self, spec: &ObjectSpec, index: Option<usize>, secret: &VaultSecret) -> [u8; 32] {
        // `Debug` has every field, also those that are added later.
        let options = format!("{spec:?} {index:?} {:?} {:?}", self.rendering, secret.content_type);
        self.conversions.compute.digest(&[options.as_bytes(), secret.value.expose_secret().as_bytes()])
    }

    /// The files that the volume has of this source.
    async fn held_files(&self, spec: &ObjectSpec, index: Option<usize>, source: &[u8; 32]) -> Option<Vec<SecretFile>> {
        let held = self.held?;
        let expected = held.converted(source)?;
        let names = names(spec, index, self.rendering).ok()?;
        let contents = held.read(names.clone()).await?;
        let mode = self.rendering.mode(spec);
        let files = names.into_iter().zip(contents).map(|(name, content)| SecretFile { name, mode, content });
        let files: Vec<SecretFile> = files.collect();
        (files_digest(&files) == expected).then_some(files)
    }

    fn converted(&self, source: [u8; 32], rendered: Rendered) -> Converted {
        let conversion = Some(Conversion { source, files: files_digest(&rendered.files) });
        Converted { rendered, conversion }
    }

    fn render_error(&self, source: RenderError) -> Error {
        Error::Render { class: self.class.clone(), vault: self.vault_name.to_owned(), source }
    }
}

/// Whether rendering needs key derivations, or splits a long text.
fn is_expensive(spec: &ObjectSpec, secret: &VaultSecret, rendering: &Rendering) -> bool {
    let archive = secret.content_type.as_deref() == Some(super::certificate::PKCS12) && spec.format == Format::Pem;
    let long = rendering.separate_files && secret.value.expose_secret().len() > SHORT;
    secret.certificate_backed && (archive || long)
}

fn secret_value(secret: &VaultSecret) -> ObjectValue<'_> {
    ObjectValue::Secret(SecretValue {
        value: &secret.value,
        content_type: secret.content_type.as_deref(),
        certificate_backed: secret.certificate_backed,
    })
}

/// One digest of names, modes and bytes.
fn files_digest(files: &[SecretFile]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for SecretFile { name, mode, content } in files {
        // With its length in front, no part can run into the next.
        for part in [name.as_str().as_bytes(), &mode.bits().to_be_bytes(), content.expose_secret()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}
