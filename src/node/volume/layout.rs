//! Pure. The steps of an atomic write: from a volume's directory to one that holds a payload.
//!
//! The layout is that of Kubernetes' own Secret volumes
//! (docs/reference/csi-driver.md#volume-layout); `writer` applies the steps.
//!
//! # Guarantees
//! After each step, a reader that has resolved `..data` once sees the old files or the new files,
//! never a mixture. After any number of steps, [`repair`] returns the steps to a complete volume.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::model::{ExposeSecret as _, Payload};

/// The link to the current generation.
pub const DATA: &str = "..data";
/// The link that a write renames to [`DATA`].
pub const DATA_TMP: &str = "..data_tmp";

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// The digest of a file's content.
pub fn digest(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

/// An entry of a volume's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A symbolic link, with its text.
    Link(String),
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// The root directory of a volume, and the top level of its current generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// All entries by name.
    pub entries: BTreeMap<String, Entry>,
    /// The names in the directory to which `..data` points; `None` if it does not exist.
    pub current: Option<BTreeSet<String>>,
}

/// The properties by which a file is compared with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// The permission bits.
    pub mode: u32,
    /// The owning group.
    pub gid: u32,
    /// The digest of its content.
    pub digest: Digest,
}

/// A volume as it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The root directory.
    pub root: Root,
    /// The files of the current generation by path; empty without one.
    pub files: BTreeMap<String, FileFacts>,
}

/// One change to a volume's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove an entry of the root with everything in it.
    Remove(String),
    /// Make a directory, given by its path below the root.
    MakeDirectory(String),
    /// Write the file with this index in the payload to this path below the root.
    WriteFile(usize, String),
    /// Make `..data_tmp` a link to this generation.
    Prepare(String),
    /// Rename `..data_tmp` to `..data`: from here on readers see the new generation.
    Switch,
    /// Make a link of this name to the same name below `..data`.
    Link(String),
}

/// The group that may read the files: the pod's `fsGroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group(pub u32);

/// The mode and group of a payload's file on disk.
///
/// Members of a group may read every file, as the kubelet grants it for read-only volumes.
pub fn ownership(mode: crate::model::FileMode, group: Option<Group>) -> (u32, Option<u32>) {
    match group {
        Some(Group(gid)) => (mode.group_readable().bits(), Some(gid)),
        None => (mode.bits(), None),
    }
}

impl Root {
    /// The name of the current generation, if `..data` is a link to a directory.
    pub fn generation(&self) -> Option<&str> {
        match self.entries.get(DATA) {
            Some(Entry::Link(name)) if self.current.is_some() => Some(name),
            Some(Entry::Link(_) | Entry::Directory | Entry::File) | None => None,
        }
    }

    /// Whether a provider wrote the files itself, without `..data`, as some older ones did
    /// (docs/reference/csi-driver.md#files-of-providers). No step of this module leads there.
    pub fn is_legacy(&self) -> bool {
        let plain = |(name, entry): (&String, &Entry)| {
            !name.starts_with("..") && matches!(entry, Entry::File | Entry::Directory)
        };
        self.generation().is_none() && self.entries.iter().any(plain)
    }
}

impl Root {
    /// Whether an entry is left from another write: a generation other than the current one, or a
    /// link to a name that the current one does not have.
    fn is_leftover(&self, name: &str, entry: &Entry) -> bool {
        if name == DATA || name == DATA_TMP {
            return false;
        }
        match entry {
            Entry::Link(text) => {
                text.starts_with(DATA) && self.current.as_ref().is_some_and(|current| !current.contains(name))
            }
            Entry::Directory => name.starts_with("..") && self.generation() != Some(name),
            Entry::File => false,
        }
    }
}

/// The steps from `tree` to `payload`, in a new generation of this name; empty if nothing differs.
///
/// `own_gid` is the group of files that are written without a [`Group`].
pub fn plan(tree: &Tree, payload: &Payload, group: Option<Group>, own_gid: u32, generation: &str) -> Vec<Step> {
    if tree.root.generation().is_some() && tree.files == facts(payload, group, own_gid) {
        return repair(&tree.root);
    }
    let (mut steps, mut root) = (Vec::new(), tree.root.clone());
    // Leftovers of an interrupted write first: the tmpfs has space for two generations only.
    root.entries.retain(|name, entry| {
        let keep = !tree.root.is_leftover(name, entry);
        if !keep {
            steps.push(Step::Remove(name.clone()));
        }
        keep
    });
    for leftover in [DATA_TMP, DATA] {
        match root.entries.get(leftover) {
            Some(Entry::Link(_)) if leftover == DATA => {}
            Some(_) => steps.push(Step::Remove(leftover.to_owned())),
            None => {}
        }
    }
    let mut directories = BTreeSet::from([generation.to_owned()]);
    for file in payload.files() {
        directories.extend(file.name.ancestors().map(|above| format!("{generation}/{above}")));
    }
    steps.extend(directories.into_iter().map(Step::MakeDirectory));
    let files = payload.files().iter().enumerate();
    steps.extend(files.map(|(index, file)| Step::WriteFile(index, format!("{generation}/{}", file.name))));
    steps.push(Step::Prepare(generation.to_owned()));
    steps.push(Step::Switch);
    steps.extend(repair(&switched(&root, payload, generation)));
    steps
}

/// [`Tree::files`] of a volume that holds the payload.
pub fn facts(payload: &Payload, group: Option<Group>, own_gid: u32) -> BTreeMap<String, FileFacts> {
    let files = payload.files().iter().map(|file| {
        let (mode, gid) = ownership(file.mode, group);
        let gid = gid.unwrap_or(own_gid);
        (file.name.as_str().to_owned(), FileFacts { mode, gid, digest: digest(file.content.expose_secret()) })
    });
    files.collect()
}

/// One digest of paths, modes, groups and content: it is equal exactly if no write is needed.
pub fn content_digest(files: &BTreeMap<String, FileFacts>) -> Digest {
    let mut all = Sha256::new();
    for (path, FileFacts { mode, gid, digest }) in files {
        // With its length in front, no path runs into the next field.
        all.update((path.len() as u64).to_be_bytes());
        all.update(path);
        all.update(mode.to_be_bytes());
        all.update(gid.to_be_bytes());
        all.update(digest);
    }
    all.finalize().into()
}

fn switched(root: &Root, payload: &Payload, generation: &str) -> Root {
    let mut entries = root.entries.clone();
    entries.remove(DATA_TMP);
    entries.insert(DATA.to_owned(), Entry::Link(generation.to_owned()));
    entries.insert(generation.to_owned(), Entry::Directory);
    let current = payload.files().iter().map(|file| file.name.top().to_owned()).collect();
    Root { entries, current: Some(current) }
}

/// The steps that complete an interrupted write: missing links, stale links, old generations.
///
/// Empty for a complete volume, and for an unfilled one, which only a write can complete.
pub fn repair(root: &Root) -> Vec<Step> {
    let (Some(_), Some(names)) = (root.generation(), &root.current) else {
        return Vec::new();
    };
    let mut steps = Vec::new();
    if root.entries.contains_key(DATA_TMP) {
        steps.push(Step::Remove(DATA_TMP.to_owned()));
    }
    for name in names {
        match root.entries.get(name) {
            Some(Entry::Link(text)) if *text == format!("{DATA}/{name}") => continue,
            // A file or directory of a legacy volume; upstream removes it, too.
            Some(Entry::Link(_) | Entry::Directory | Entry::File) => steps.push(Step::Remove(name.clone())),
            None => {}
        }
        steps.push(Step::Link(name.clone()));
    }
    let leftovers = root.entries.iter().filter(|(name, entry)| root.is_leftover(name, entry));
    steps.extend(leftovers.map(|(name, _)| Step::Remove(name.clone())));
    steps
}
