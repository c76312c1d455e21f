//! What the Secrets of a class are made of in one look: the class and its volume's files, each taken apart once and
//! only if need be.
//!
//! `desired` and `tls` do it; what is expensive goes to `compute`, in the turn of the class's namespace. Files that
//! cannot be taken apart are remembered by a keyed digest; what is in them is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::desired::{Desired, OpenedFiles, desired, files_to_open};
use super::error::Error;
use super::files::Files;
use super::plan::Owners;
use super::tls::{self, Opened, TlsError};
use crate::compute::{Compute, ResultCache};
use crate::formats::pkcs12::Work;
use crate::model::{Class, ExposeSecret as _};

/// How long one look waits for archives; it holds one of few places, and comes again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes files apart, and remembers those that cannot be.
#[derive(Debug)]
pub(super) struct Reader {
    compute: Compute,
    refused: ResultCache<TlsError>,
}

/// The class and the files of one look.
pub(super) struct Material<'a> {
    class: Arc<Class>,
    files: Arc<Files>,
    reader: &'a Reader,
    deadline: Instant,
    digests: BTreeMap<String, [u8; 32]>,
    opened: OpenedFiles,
}

impl Reader {
    /// A reader that knows of no file.
    pub(super) fn new(compute: Compute) -> Reader {
        Reader { compute, refused: ResultCache::default() }
    }
}

impl<'a> Material<'a> {
    pub(super) fn new(class: Class, files: Files, reader: &'a Reader) -> Material<'a> {
        let deadline = Instant::now() + PATIENCE;
        let (digests, opened) = (BTreeMap::new(), OpenedFiles::new());
        Material { class: Arc::new(class), files: Arc::new(files), reader, deadline, digests, opened }
    }

    pub(super) fn class(&self) -> &Arc<Class> {
        &self.class
    }

    /// The digest of all that decides what the secretObject `at` asks for.
    pub(super) fn inputs(&mut self, at: usize, owners: &Owners) -> [u8; 32] {
        let class = self.class.clone();
        let Some(object) = class.secret_objects.get(at) else { return [0; 32] };
        let names = class.secret_objects[..at].iter().map(|other| other.secret_name.as_str());
        let options = format!("{} {at} {:?} {object:?} {owners:?}", class.reference, names.collect::<Vec<_>>());
        let files = object.data.iter().map(|item| self.digest(item.object_name.trim())).collect::<Vec<_>>();
        let parts: Vec<&[u8]> = [options.as_bytes()].into_iter().chain(files.iter().map(|file| &file[..])).collect();
        self.reader.compute.digest(&parts)
    }

    /// The digest of a file; all that are not there have the same.
    fn digest(&mut self, name: &str) -> [u8; 32] {
        if let Some(known) = self.digests.get(name) {
            return *known;
        }
        let content = self.files.contents.get(name);
        let digest = content.map_or([0; 32], |content| self.reader.compute.digest(&[content.expose_secret()]));
        self.digests.insert(name.to_owned(), digest);
        digest
    }

    /// What the secretObject `at` asks for.
    ///
    /// # Errors
    /// The first thing that is wrong with it, or a file that was not taken apart in time.
    pub(super) async fn desired(&mut self, at: usize) -> Result<Desired, Error> {
        let class = self.class.clone();
        let (mut opened, mut cheap) = (OpenedFiles::new(), true);
        for name in files_to_open(&class, at) {
            let Some(file) = self.open(name).await? else { continue };
            cheap &= self.is_cheap(name);
            opened.insert(name.to_owned(), file);
        }
        if cheap {
            return Ok(desired(&class, at, &self.files, &opened)?);
        }
        // Certificates are read and put in order: thousands of them, if somebody likes.
        let prepare = || {
            let (class, files) = (class.clone(), self.files.clone());
            move |_: &mut Work| desired(&class, at, &files, &opened)
        };
        let namespace = &class.reference.namespace;
        let made = self.reader.compute.run(namespace, self.deadline, prepare).await;
        let late = |source| {
            let file = files_to_open(&class, at).next().unwrap_or_default().to_owned();
            Error::Compute { class: class.reference.clone(), file, source }
        };
        Ok(made.map_err(late)??)
    }

    fn is_cheap(&self, name: &str) -> bool {
        self.files.contents.get(name).is_none_or(|content| tls::is_cheap(content.expose_secret()))
    }

    /// A file taken apart; `None` when it is not there.
    async fn open(&mut self, name: &str) -> Result<Option<Arc<Result<Opened, TlsError>>>, Error> {
        if let Some(known) = self.opened.get(name) {
            return Ok(Some(known.clone()));
        }
        let files = self.files.clone();
        let Some(content) = files.contents.get(name) else { return Ok(None) };
        let opened = match tls::is_cheap(content.expose_secret()) {
            true => tls::open(content.expose_secret(), &mut Work::default()),
            false => self.open_elsewhere(name).await?,
        };
        let opened = Arc::new(opened);
        self.opened.insert(name.to_owned(), opened.clone());
        Ok(Some(opened))
    }

    async fn open_elsewhere(&mut self, name: &str) -> Result<Result<Opened, TlsError>, Error> {
        let digest = self.digest(name);
        let Reader { compute, refused } = self.reader;
        let namespace = &self.class.reference.namespace;
        if let Some(refusal) = refused.get(namespace, &digest) {
            return Ok(Err(refusal));
        }
        let prepare = || {
            let (files, name) = (self.files.clone(), name.to_owned());
            move |work: &mut Work| {
                let content = files.contents.get(&name).map(|content| content.expose_secret()).unwrap_or_default();
                tls::open(content, work)
            }
        };
        let opened = compute.run(namespace, self.deadline, prepare).await;
        let late = |source| Error::Compute { class: self.class.reference.clone(), file: name.to_owned(), source };
        let opened = opened.map_err(late)?;
        if let Err(refusal) = &opened {
            if matches!(refusal, TlsError::TooExpensive(_)) {
                compute.count_too_expensive();
            }
            refused.put(namespace, digest, refusal.clone());
        }
        Ok(opened)
    }
}
