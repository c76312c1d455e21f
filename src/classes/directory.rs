//! Classes from a directory of YAML manifests.
//!
//! Reads files again when they changed, and keeps what a file said last while it cannot be read; watches nothing and
//! does not read subdirectories. `manifest` reads the text of a file; control goes back to [`super::Classes::get`].
//!
//! # Guarantees
//! A file that cannot be read never hides the classes of other files. A warning comes once for each change of a file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::error::{Broken, Error};
use super::limits;
use super::manifest::{self, Entry, Manifest};
use crate::model::{Class, ClassRef};

/// How old a change must be before an equal [`Stamp`] proves that nothing changed since.
///
/// File times are as coarse as the kernel's tick, or two seconds on some network file systems: a file may change twice
/// within one time.
const SETTLED: Duration = Duration::from_secs(2);

/// A directory of YAML manifests; clones share what they have read.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    files: Arc<Mutex<BTreeMap<String, Cached>>>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Cached {
    stamp: Option<Stamp>,
    /// The classes of the last content that could be read.
    entries: Vec<Entry>,
    /// Why the present content, or a class in it, cannot be read.
    broken: Option<String>,
}

/// What tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    settled: bool,
}

impl Directory {
    /// Opens `path` and reads its manifests for the first time, which blocks.
    ///
    /// # Errors
    /// A path that is no directory or cannot be listed, or more than [`limits`] allow. Broken files are only logged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Directory, Error> {
        let directory = Directory { path: path.into(), files: Arc::default() };
        directory.refresh(&mut directory.lock())?;
        Ok(directory)
    }

    /// The class of this name as it is now; blocks while files are looked at.
    ///
    /// # Errors
    /// No such class, the class in two files, or a class that the API server would refuse.
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
        // A thread that died left whole entries behind, at worst old ones, and the next look at the files corrects them.
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

    /// Brings what is known in line with the directory: new files, changed files, files that are gone.
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
            // A name that is not UTF-8 is nobody's manifest.
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
    /// Looks at the file and reads it if it changed; gives the warning that is due, if one is.
    fn refresh(&mut self, path: &Path) -> Option<String> {
        let (stamp, read) = match look(path, self.stamp, SystemTime::now()) {
            Ok(Look::Unchanged) => return None,
            Ok(Look::NoFile) => {
                *self = Cached::default();
                return None;
            }
            Ok(Look::Changed(stamp, text)) => (Some(stamp), text.and_then(|text| manifest::parse(&text))),
            Err(error) => (None, Err(error.to_string())),
        };
        let changed = !same_content(self.stamp, stamp);
        self.stamp = stamp;
        match read {
            Ok(Manifest { entries, unnameable }) => {
                self.entries = entries;
                match unnameable {
                    Some(why) => self.note(why, changed),
                    None => {
                        self.broken = None;
                        None
                    }
                }
            }
            Err(why) => self.note(why, changed),
        }
    }

    /// Notes what cannot be read; gives it back if that is news.
    fn note(&mut self, why: String, changed: bool) -> Option<String> {
        let news = changed || self.broken.as_ref() != Some(&why);
        self.broken = Some(why.clone());
        news.then_some(why)
    }
}

/// What a look at a file found.
#[derive(Debug)]
pub(super) enum Look {
    Unchanged,
    /// Something else than a file has the name, such as a directory or a pipe, which must not be opened.
    NoFile,
    Changed(Stamp, Result<String, String>),
}

/// Looks at a file as at `now`, and reads it unless it is `known`.
pub(super) fn look(path: &Path, known: Option<Stamp>, now: SystemTime) -> io::Result<Look> {
    // Follows symbolic links: the files of a ConfigMap volume are links into `..data`.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(Look::NoFile);
    }
    if known.is_some_and(|known| known.settled && known == Stamp::of(&metadata, now)) {
        return Ok(Look::Unchanged);
    }
    let file = File::open(path)?;
    // Before reading, so that a change while we read is seen as one the next time.
    let stamp = Stamp::of(&file.metadata()?, now);
    let mut bytes = Vec::new();
    file.take(limits::FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::FILE {
        return Ok(Look::Changed(stamp, Err(format!("it is larger than {} bytes", limits::FILE))));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned());
    Ok(Look::Changed(stamp, text))
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
            // A whole second is added for the part that `changed` leaves out.
            settled: now > changed + SETTLED + Duration::from_secs(1),
        }
    }
}

fn same_content(old: Option<Stamp>, new: Option<Stamp>) -> bool {
    let settled = |stamp: Option<Stamp>| stamp.map(|stamp| Stamp { settled: true, ..stamp });
    settled(old) == settled(new)
}

/// Visible `*.yaml`, `*.yml` and `*.json`.
fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}
