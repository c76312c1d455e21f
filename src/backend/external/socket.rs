//! Pure. A provider's name, and the paths of its socket.
//!
//! The rules are upstream's (docs/reference/csi-driver.md#provider-sockets): additional directories
//! first, and the name becomes a file name.

use std::fmt;
use std::path::{Path, PathBuf};

/// The longest name.
const LONGEST: usize = 30;

/// The name of a provider: up to 30 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(String);

impl ProviderName {
    /// `None` for a text that is not a name, so that no path is made of it.
    pub fn new(text: &str) -> Option<ProviderName> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let good = (1..=LONGEST).contains(&text.len()) && text.bytes().all(fits);
        good.then(|| ProviderName(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its socket in each directory, in order.
    pub(super) fn sockets(&self, directories: &[PathBuf]) -> Vec<PathBuf> {
        directories.iter().map(|directory| directory.join(format!("{self}.sock"))).collect()
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directories of upstream's two flags, in the order in which they are searched: the additional
/// ones first.
///
/// Upstream uses the working directory for an empty entry; here it is ignored.
pub fn directories(additional: &str, main: &Path) -> Vec<PathBuf> {
    let additional = additional.split(',').filter(|entry| !entry.is_empty()).map(PathBuf::from);
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in additional.chain([main.to_owned()]) {
        if !directory.as_os_str().is_empty() && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}
