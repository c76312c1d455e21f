//! Detects changes of files without reading them.
//!
//! Follows links, so that a link to another file is a change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files of one folder that count; a system's folder of CA certificates has some 300.
const MAX_FILES: usize = 4096;

/// A number that changes when one of the files, or a file directly in one of the folders, is
/// changed, replaced, added or removed.
pub fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        add(path, &mut hasher);
        let Ok(entries) = std::fs::read_dir(path) else {
            continue;
        };
        let mut below: Vec<PathBuf> = entries.flatten().take(MAX_FILES).map(|entry| entry.path()).collect();
        below.sort();
        below.iter().for_each(|path| add(path, &mut hasher));
    }
    hasher.finish()
}

fn add(path: &Path, hasher: &mut DefaultHasher) {
    path.hash(hasher);
    // The target of a link, by name and by inode: either may change alone.
    std::fs::canonicalize(path).ok().hash(hasher);
    if let Ok(found) = std::fs::metadata(path) {
        (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()).hash(hasher);
    }
}
