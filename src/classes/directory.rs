//! Classes from a directory of YAML manifests.
//!
//! On each lookup, reads the files that changed; while a file is unreadable, its last classes stay.
//! Does not watch, and ignores subdirectories. `manifest` parses the text of a file.
//!
//! # Guarantees
//! An unreadable file does not affect the classes of other files. There is one warning for each
//! change of a file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::error::{Broken, Error};
use super::limits;
use super::manifest::{self, Entry, Manifest};
use crate::model::{Class, ClassRef};
use crate::queue::warn_once::WarnOnce;

/// How old a change must be before an equal [`Stamp`] proves that nothing changed since.
///
/// File times are as coarse as the kernel's tick, or two seconds on some network file systems: a
/// file may change twice with one time.
const SETTLED: Duration = Duration::from_secs(2);

/// A directory of YAML manifests. Cheap to clone; all clones share the cache.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    files: Arc<Mutex<BTreeMap<String, Cached>>>,
}

/// One file.
#[derive(Debug, Default)]
struct Cached {
    stamp: Option<Stamp>,
    /// The classes of the last readable content.
    entries: Vec<Entry>,
    /// Why the current content, or a class in it, is unusable.
    broken: Option<String>,
    /// The content that was reported as broken, and why.
    failing: WarnOnce<(Option<Stamp>, String)>,
}

/// Distinguishes one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    settled: bool,
}

impl Directory {
    /// Opens `path` and reads its manifests. Blocks.
    ///
    /// # Errors
    /// The path is not a readable directory, or exceeds a limit. Unreadable files are only logged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Directory, Error> {
        let directory = Directory { path: path.into(), files: Arc::default() };
        directory.refresh(&mut directory.lock())?;
        Ok(directory)
    }

    /// The class of this name. Blocks while it checks the files.
    ///
    /// # Errors
    /// The class does not exist, exists twice, or is one that the API server would reject.
    pub fn get(&self, class: &ClassRef) -> Result<Class, Error> {
        let mut files = self.lock();
        self.refresh(&mut files)?;
        let mut found = files.iter().flat_map(|(file, cached)| {
            let entries = cached.entries.iter().filter(|entry| entry.reference == *class);
            entries.map(move |entry| (file, entry))
        });
        let Some((file, entry)) = found.next() else {
            return Err(self.not_found(class, &files));
        };
        if let Some((second, _)) = found.next() {
            let (first, second) = (file.clone(), second.clone());
            return Err(Error::Twice { class: class.clone(), first, second });
        }
        let invalid = |why| Error::Invalid { class: class.clone(), file: file.clone(), why };
        entry.class.clone().map_err(invalid)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Cached>> {
        // A panic leaves at worst old entries, which the next refresh corrects.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_found(&self, class: &ClassRef, files: &BTreeMap<String, Cached>) -> Error {
        let known = files.values().flat_map(|cached| &cached.entries).map(|entry| &entry.reference);
        let mut elsewhere: Vec<String> =
            known.filter(|other| other.name == class.name).map(|other| other.namespace.to_string()).collect();
        elsewhere.sort();
        elsewhere.dedup();
        let unread = |(file, cached): (&String, &Cached)| {
            cached.broken.as_ref().map(|why| Broken { file: file.clone(), why: why.clone() })
        };
        let broken = files.iter().filter_map(unread).collect();
        Error::NotFound { class: class.clone(), directory: self.path.clone(), elsewhere, broken }
    }

    /// Updates the cache: new files, changed files, removed files.
    fn refresh(&self, files: &mut BTreeMap<String, Cached>) -> Result<(), Error> {
        let names = self.list()?;
        files.retain(|name, _| names.binary_search(name).is_ok());
        for name in names {
            let cached = files.entry(name.clone()).or_default();
            let warning = cached.refresh(&self.path.join(&name));
            if let Some(why) = warning {
                tracing::warn!(directory = %self.path.display(), file = %name, error = %why, "manifest cannot be read");
            }
        }
        let classes: usize = files.values().map(|cached| cached.entries.len()).sum();
        if classes > limits::CLASSES {
            return Err(self.too_many("classes", limits::CLASSES));
        }
        Ok(())
    }

    /// The names of the manifest files, sorted.
    fn list(&self) -> Result<Vec<String>, Error> {
        let unlisted = |source| Error::Directory { directory: self.path.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(unlisted)? {
            let name = entry.map_err(unlisted)?.file_name();
            // Manifest names are UTF-8.
            if let Some(name) = name.to_str().filter(|name| is_manifest(name)) {
                names.push(name.to_owned());
            }
            if names.len() > limits::FILES {
                return Err(self.too_many("manifest files", limits::FILES));
            }
        }
        names.sort();
        Ok(names)
    }

    fn too_many(&self, what: &'static str, limit: usize) -> Error {
        Error::TooMany { directory: self.path.clone(), what, limit }
    }
}

impl Cached {
    /// Reads the file if it changed; returns the problem to warn about, if there is a new one.
    fn refresh(&mut self, path: &Path) -> Option<String> {
        let (stamp, read) = match read_changed(path, self.stamp, SystemTime::now()) {
            Ok(FileState::Unchanged) => return None,
            Ok(FileState::NotAFile) => {
                *self = Cached::default();
                return None;
            }
            Ok(FileState::Changed(stamp, text)) => (Some(stamp), text.and_then(|text| manifest::parse(&text))),
            Err(error) => (None, Err(error.to_string())),
        };
        self.stamp = stamp;
        match read {
            Ok(Manifest { entries, unnameable }) => {
                self.entries = entries;
                match unnameable {
                    Some(why) => self.set_broken(why),
                    None => {
                        self.broken = None;
                        self.failing.resolve();
                        None
                    }
                }
            }
            Err(why) => self.set_broken(why),
        }
    }

    /// Records why the file is unusable; returns that if it has to be reported.
    fn set_broken(&mut self, why: String) -> Option<String> {
        self.broken = Some(why.clone());
        // Whether the stamp is settled says nothing about the content.
        let content = self.stamp.map(|stamp| Stamp { settled: true, ..stamp });
        self.failing.should_warn((content, why.clone()), Instant::now()).then_some(why)
    }
}

/// The result of [`read_changed`].
#[derive(Debug)]
pub(super) enum FileState {
    Unchanged,
    /// A directory or a pipe, for example, which must not be opened.
    NotAFile,
    Changed(Stamp, Result<String, String>),
}

/// Reads a file unless it still has the stamp `known`.
pub(super) fn read_changed(path: &Path, known: Option<Stamp>, now: SystemTime) -> io::Result<FileState> {
    // Follows symbolic links: the files of a ConfigMap volume are links into `..data`.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(FileState::NotAFile);
    }
    if known.is_some_and(|known| known.settled && known == Stamp::of(&metadata, now)) {
        return Ok(FileState::Unchanged);
    }
    let file = File::open(path)?;
    // Before the read, so that the next call notices a change during the read.
    let stamp = Stamp::of(&file.metadata()?, now);
    let mut bytes = Vec::new();
    file.take(limits::FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::FILE {
        return Ok(FileState::Changed(stamp, Err(format!("it is larger than {} bytes", limits::FILE))));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned());
    Ok(FileState::Changed(stamp, text))
}

impl Stamp {
    fn of(metadata: &Metadata, now: SystemTime) -> Stamp {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or_default());
        Stamp {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            // One second more, because `changed` lacks the fraction.
            settled: now > changed + SETTLED + Duration::from_secs(1),
        }
    }
}

/// Visible `*.yaml`, `*.yml` and `*.json`.
fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}
