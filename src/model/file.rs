//! The content of a volume: file names, modes, contents, object versions.
//!
//! A [`Payload`] is the complete content of a volume. It cannot have two files of one path or
//! exceed the limits. Writing it is not this module's task.

use std::collections::BTreeMap;
use std::fmt;

use super::{Reason, SecretBytes};
use secrecy::ExposeSecret;

/// The limits of a volume's content.
pub mod limits {
    /// The longest file path in bytes (`PATH_MAX`, docs/reference/csi-driver.md#file-paths).
    pub const PATH: usize = 4096;
    /// The longest path component in bytes (`NAME_MAX`, docs/reference/csi-driver.md#file-paths).
    pub const COMPONENT: usize = 255;
    /// The deepest path: each level costs kernel memory.
    pub const DEPTH: usize = 16;
    /// The size of a volume's content in bytes, each file rounded up to whole pages.
    ///
    /// Equals the 4 MiB that upstream accepts from a provider by default; 1,024 small files fit.
    pub const PAYLOAD: usize = 4 << 20;
    /// The least that a tmpfs file costs, in bytes.
    pub const PAGE: usize = 4096;
}

/// A file's path below the mount: relative, clean, without `..`, not starting with `..`.
///
/// The rules are those of docs/reference/csi-driver.md#file-paths; `.` and NUL bytes are refused in
/// addition, since upstream would delete the whole volume for the former.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

/// Why a text is not a [`FileName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// The text is empty.
    #[error("the file name is empty")]
    Empty,
    /// The path starts at the root.
    #[error("the file name must be relative to the mount, but it starts with '/'")]
    Absolute,
    /// The path holds a NUL byte.
    #[error("the file name holds a NUL byte")]
    Nul,
    /// The path is longer than [`limits::PATH`].
    #[error("the file name is {0} bytes long; at most 4096 are possible")]
    TooLong(usize),
    /// A component is longer than [`limits::COMPONENT`].
    #[error("a component of the file name is {0} bytes long; at most 255 are possible")]
    ComponentTooLong(usize),
    /// More components than [`limits::DEPTH`].
    #[error("the file name has {0} components; at most 16 are possible")]
    TooDeep(usize),
    /// A component is `..`.
    #[error("the file name must not contain '..'")]
    Traversal,
    /// The first component starts with `..`, which is reserved for the volume's own bookkeeping.
    #[error("the file name must not start with '..'")]
    Reserved,
    /// `//`, `./` or a trailing slash.
    #[error("the file name is not in its shortest form: no empty component, no '.', no trailing '/'")]
    NotClean,
}

impl FileName {
    /// Checks a path below the mount.
    ///
    /// # Errors
    /// The first rule of docs/reference/csi-driver.md#file-paths that the text breaks.
    pub fn new(text: &str) -> Result<FileName, FileNameError> {
        if text.is_empty() {
            return Err(FileNameError::Empty);
        }
        if text.contains('\0') {
            return Err(FileNameError::Nul);
        }
        if text.starts_with('/') {
            return Err(FileNameError::Absolute);
        }
        if text.len() > limits::PATH {
            return Err(FileNameError::TooLong(text.len()));
        }
        for component in text.split('/') {
            match component {
                ".." => return Err(FileNameError::Traversal),
                "" | "." => return Err(FileNameError::NotClean),
                long if long.len() > limits::COMPONENT => return Err(FileNameError::ComponentTooLong(long.len())),
                _ => {}
            }
        }
        if text.starts_with("..") {
            return Err(FileNameError::Reserved);
        }
        let depth = text.split('/').count();
        if depth > limits::DEPTH {
            return Err(FileNameError::TooDeep(depth));
        }
        Ok(FileName(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the mount down; at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The first component: the name in the mount's root.
    pub fn top(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The directories of the path, outermost first: `a/b/c` has `a` and `a/b`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The permission bits of a file: 0 to 0777.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileMode(u32);

impl FileMode {
    /// The mode of files without a mode of their own (docs/reference/csi-driver.md#mount-request:
    /// permission 420).
    pub const DEFAULT: FileMode = FileMode(0o644);

    /// `None` if a bit beyond 0777 is set.
    pub fn new(bits: u32) -> Option<FileMode> {
        (bits <= 0o777).then_some(FileMode(bits))
    }

    /// The permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The same mode, readable by the group: the effect of `fsGroup` on a read-only volume.
    pub fn group_readable(self) -> FileMode {
        FileMode(self.0 | 0o040)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// One file of a volume.
#[derive(Debug)]
pub struct SecretFile {
    /// Its path below the mount.
    pub name: FileName,
    /// Its permission bits.
    pub mode: FileMode,
    /// Its bytes.
    pub content: SecretBytes,
}

/// An object and its version, from which a volume was filled
/// (docs/reference/azure-provider.md#version-ids).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectVersion {
    /// `<type>/<name>`, with `/<i>` behind it in history mode.
    pub id: String,
    /// The concrete version, also if the class asks for the newest.
    pub version: String,
}

/// An expensive conversion of a value to files; both as digests, so that it can stay in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversion {
    /// Of the value and of everything that decides its files, keyed per process.
    pub source: [u8; 32],
    /// Of the files: their names, modes and bytes.
    pub files: [u8; 32],
}

/// The complete content of a volume, sorted by path.
#[derive(Debug)]
pub struct Payload {
    files: Vec<SecretFile>,
    versions: Vec<ObjectVersion>,
    conversions: Vec<Conversion>,
    expires: Option<i64>,
    limit: usize,
}

/// Why files are not a [`Payload`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Two files have one path.
    #[error("two objects write the file {0:?}; give one of them another objectAlias")]
    Duplicate(String),
    /// One path is a file and a directory at once.
    #[error(
        "{file:?} is a file and, because of {below:?}, a directory at once; give one of the objects another objectAlias"
    )]
    FileAndDirectory {
        /// The path that is a file.
        file: String,
        /// A path below it.
        below: String,
    },
    /// The files exceed the limit together.
    #[error(
        "the volume's files need {bytes} bytes, each in whole pages; at most {limit} are possible: spread the objects over several classes"
    )]
    TooLarge {
        /// The files' size, each rounded up to whole pages.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// There are no files.
    #[error("there is no object to mount")]
    Empty,
}

impl PayloadError {
    /// The reason of this error.
    pub fn reason(&self) -> Reason {
        match self {
            PayloadError::Duplicate(_) | PayloadError::FileAndDirectory { .. } | PayloadError::Empty => {
                Reason::ClassInvalid
            }
            PayloadError::TooLarge { .. } => Reason::TooLarge,
        }
    }
}

impl Payload {
    /// The complete content of a volume.
    ///
    /// # Errors
    /// No file, two files of one path, a path that is a file and a directory, or more than
    /// [`limits::PAYLOAD`].
    pub fn new(files: Vec<SecretFile>, versions: Vec<ObjectVersion>) -> Result<Payload, PayloadError> {
        Payload::within(limits::PAYLOAD, files, versions)
    }

    /// The same with another limit in place of [`limits::PAYLOAD`].
    ///
    /// # Errors
    /// As [`Payload::new`].
    pub fn within(
        limit: usize,
        mut files: Vec<SecretFile>,
        versions: Vec<ObjectVersion>,
    ) -> Result<Payload, PayloadError> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        check_names(files.iter().map(|file| &file.name))?;
        let bytes = files.iter().map(|file| pages(file.content.expose_secret().len())).sum();
        if bytes > limit {
            return Err(PayloadError::TooLarge { bytes, limit });
        }
        Ok(Payload { files, versions, conversions: Vec::new(), expires: None, limit })
    }

    /// The same, with the time when the first of its objects expires, in seconds since 1970.
    pub fn expiring(self, expires: Option<i64>) -> Payload {
        Payload { expires, ..self }
    }

    /// The same, with what some of its files were converted from.
    pub fn converting(self, conversions: Vec<Conversion>) -> Payload {
        Payload { conversions, ..self }
    }

    /// What some of its files were converted from.
    pub fn conversions(&self) -> &[Conversion] {
        &self.conversions
    }

    /// The largest size in bytes, each file rounded up to whole pages.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// When the first of its objects expires, in seconds since 1970; `None` if the vault has no
    /// date.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[SecretFile] {
        &self.files
    }

    /// The object versions, in the order of the class.
    pub fn versions(&self) -> &[ObjectVersion] {
        &self.versions
    }
}

/// Checks that one volume can have files of these names; also called before the fetch.
///
/// # Errors
/// See [`PayloadError`]; the size is not checked.
pub(crate) fn check_names<'a>(names: impl Iterator<Item = &'a FileName>) -> Result<(), PayloadError> {
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    let names: Vec<&FileName> = names.collect();
    if names.is_empty() {
        return Err(PayloadError::Empty);
    }
    for name in &names {
        if seen.insert(name.as_str(), ()).is_some() {
            return Err(PayloadError::Duplicate(name.to_string()));
        }
    }
    for name in &names {
        if let Some(file) = name.ancestors().find(|dir| seen.contains_key(dir)) {
            return Err(PayloadError::FileAndDirectory { file: file.to_owned(), below: name.to_string() });
        }
    }
    Ok(())
}

fn pages(bytes: usize) -> usize {
    // An empty file has its inode and its link.
    bytes.div_ceil(limits::PAGE).max(1) * limits::PAGE
}
