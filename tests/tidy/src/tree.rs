//! The files of the repository, as git lists them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One text file, with its path from the root of the repository.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the crate lies in the repository")
}

/// All files that are tracked, or new and not ignored, and are UTF-8.
pub(crate) fn files() -> Vec<File> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").current_dir(root()).args(list).output().expect("git lists the files");
    assert!(listed.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    // A file that was deleted and not committed yet is listed, too.
    let read =
        |path: &str| Some(File { path: path.to_owned(), text: std::fs::read_to_string(root().join(path)).ok()? });
    let files: Vec<File> = paths.filter_map(read).collect();
    assert!(files.len() > 300, "only {} files found", files.len());
    files
}

/// The Rust sources below these folders; generated ones are left out.
pub(crate) fn sources(below: &[&str]) -> Vec<File> {
    let wanted = |path: &str| path.ends_with(".rs") && below.iter().any(|folder| path.starts_with(folder));
    files().into_iter().filter(|file| wanted(&file.path) && !file.path.starts_with("proto/")).collect()
}

/// Whether a file holds tests only.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}
