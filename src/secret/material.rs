//! The files of one reconcile, each taken apart at most once and only if a Secret needs a part of
//! it.
//!
//! `desired` and `tls` do the work; expensive work runs on the `compute` thread, in the turn of the
//! namespace. Files that cannot be taken apart are remembered by a keyed digest; contents are not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::desired::{self, DesiredContent, Files, OpenedFiles};
use super::error::Error;
use super::plan::Owners;
use super::tls::{self, Opened, TlsError};
use crate::compute::{self, Compute, ResultCache};
use crate::formats::pkcs12::Work;
use crate::model::{ClassRef, ExposeSecret as _, Namespace, SecretObject};

/// How long one reconcile waits for archives: it occupies one of few workers, and is retried.
const DEADLINE: Duration = Duration::from_secs(30);

/// Takes files apart, and remembers those that cannot be.
#[derive(Debug)]
pub(crate) struct FileOpener {
    compute: Compute,
    failed: ResultCache<TlsError>,
}

/// The files of one reconcile.
pub(crate) struct Material<'a> {
    namespace: Namespace,
    files: Arc<Files>,
    opener: &'a FileOpener,
    deadline: Instant,
    digests: BTreeMap<String, [u8; 32]>,
    opened: OpenedFiles,
}

impl FileOpener {
    pub(crate) fn new(compute: Compute) -> FileOpener {
        FileOpener { compute, failed: ResultCache::default() }
    }
}

impl<'a> Material<'a> {
    /// Work on `files` counts for `namespace`.
    pub(crate) fn new(namespace: Namespace, files: Files, opener: &'a FileOpener) -> Material<'a> {
        let deadline = Instant::now() + DEADLINE;
        let (digests, opened) = (BTreeMap::new(), OpenedFiles::new());
        Material { namespace, files: Arc::new(files), opener, deadline, digests, opened }
    }

    /// A digest of everything that the Secret for `object` is built from.
    pub(crate) fn inputs(&mut self, class: &ClassRef, object: &SecretObject, owners: &Owners) -> [u8; 32] {
        let options = format!("{class} {object:?} {owners:?}");
        let files = object.data.iter().map(|item| self.digest(item.object_name.trim())).collect::<Vec<_>>();
        let parts: Vec<&[u8]> = [options.as_bytes()].into_iter().chain(files.iter().map(|file| &file[..])).collect();
        self.opener.compute.digest(&parts)
    }

    /// The digest of a file; all missing files have the same one.
    fn digest(&mut self, name: &str) -> [u8; 32] {
        if let Some(known) = self.digests.get(name) {
            return *known;
        }
        let content = self.files.contents.get(name);
        let digest = content.map_or([0; 32], |content| self.opener.compute.digest(&[content.expose_secret()]));
        self.digests.insert(name.to_owned(), digest);
        digest
    }

    /// The content that `object` asks for.
    ///
    /// # Errors
    /// The first mistake in the object, or a file that was not taken apart in time.
    pub(crate) async fn build(&mut self, object: &SecretObject) -> Result<DesiredContent, Error> {
        let (mut opened, mut cheap) = (OpenedFiles::new(), true);
        for name in desired::files_to_open(object) {
            let Some(file) = self.open(name).await? else { continue };
            cheap &= self.is_cheap(name);
            opened.insert(name.to_owned(), file);
        }
        if cheap {
            return Ok(desired::build(object, &self.files, &opened)?);
        }
        // A tenant may put thousands of certificates into a file, and each is parsed and put in
        // order.
        let shared = Arc::new(object.clone());
        let prepare = || {
            let (object, files) = (shared.clone(), self.files.clone());
            move |_: &mut Work| desired::build(&object, &files, &opened)
        };
        let built = self.opener.compute.run(&self.namespace, self.deadline, prepare).await;
        let file = || desired::files_to_open(object).next().unwrap_or_default().to_owned();
        Ok(built.map_err(|source| Error::Compute { file: file(), source })??)
    }

    fn is_cheap(&self, name: &str) -> bool {
        self.files.contents.get(name).is_none_or(|content| tls::is_cheap(content.expose_secret()))
    }

    /// A file, taken apart; `None` if it does not exist.
    async fn open(&mut self, name: &str) -> Result<Option<Arc<Result<Opened, TlsError>>>, Error> {
        if let Some(known) = self.opened.get(name) {
            return Ok(Some(known.clone()));
        }
        let files = self.files.clone();
        let Some(content) = files.contents.get(name) else { return Ok(None) };
        let opened = match tls::is_cheap(content.expose_secret()) {
            true => tls::open(content.expose_secret(), &mut Work::default()),
            false => self.open_on_compute_thread(name).await?,
        };
        let opened = Arc::new(opened);
        self.opened.insert(name.to_owned(), opened.clone());
        Ok(Some(opened))
    }

    async fn open_on_compute_thread(&mut self, name: &str) -> Result<Result<Opened, TlsError>, Error> {
        let digest = self.digest(name);
        let FileOpener { compute, failed } = self.opener;
        if let Some(error) = failed.get(&self.namespace, &digest) {
            return Ok(Err(error));
        }
        let prepare = || {
            let (files, name) = (self.files.clone(), name.to_owned());
            move |work: &mut Work| {
                let content = files.contents.get(&name).map(|content| content.expose_secret()).unwrap_or_default();
                tls::open(content, work)
            }
        };
        let opened = compute.run(&self.namespace, self.deadline, prepare).await;
        let opened = opened.map_err(|source: compute::Error| Error::Compute { file: name.to_owned(), source })?;
        if let Err(error) = &opened {
            if matches!(error, TlsError::TooExpensive(_)) {
                compute.count_too_expensive();
            }
            failed.put(&self.namespace, digest, error.clone());
        }
        Ok(opened)
    }
}
