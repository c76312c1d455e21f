//! What is wrong with a secretObject, for the author of the class.
//!
//! Pure. Names the field and the fix, and never contains a value; text from the class is cut.

use std::fmt;

use super::tls::TlsError;
use crate::model::{InvalidName, Reason};

/// How many files a message lists.
const LISTED_FILES: usize = 20;
/// The longest excerpt of a text from the class, in characters.
const EXCERPT: usize = 100;

/// What is wrong with one secretObject; `item` is the index in its `data`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    #[error("secretName is empty: name the Secret that is to be written")]
    NameMissing,
    #[error(
        "secretName is not a valid Secret name: use lower-case letters, digits, '-' and '.', at most 253, a letter or digit at both ends"
    )]
    NameInvalid,
    #[error("data is empty: list at least one objectName with its key")]
    DataMissing,
    #[error("labels: {0}")]
    Label(InvalidName),
    #[error("annotations: {0}")]
    Annotation(InvalidName),
    #[error("annotations have more than 262144 bytes together: shorten them")]
    AnnotationsTooLarge,
    #[error("data[{0}].objectName is empty: name the file, which is the object's alias or name")]
    ObjectNameMissing(usize),
    #[error("data[{0}].key is empty: name the key in the Secret")]
    KeyMissing(usize),
    #[error("data[{item}].key {:?} is not a valid Secret key: use letters, digits, '-', '_' and '.', at most 253", Excerpt(.key).to_string())]
    KeyInvalid { item: usize, key: String },
    #[error("data[{item}].objectName: file matching objectName {} not found in the pod; the volume has {}", Excerpt(.name), FileList(.files))]
    FileMissing {
        item: usize,
        name: String,
        /// The paths that the volume has.
        files: Vec<String>,
    },
    #[error("type {of} needs the key {key}: add it to data")]
    TypeNeeds {
        of: &'static str,
        /// The key, or the keys of which one is needed.
        key: &'static str,
    },
    #[error("data[{item}]: type {of} needs the file {} to be a JSON object, which it is not", Excerpt(.name))]
    NotJson { item: usize, of: &'static str, name: String },
    #[error("data[{item}]: {key} from file {}: {source}", Excerpt(.name))]
    Tls { item: usize, key: String, name: String, source: TlsError },
    #[error("its values are {0} bytes long together; a Secret holds 1048576 at most: spread them over several")]
    TooLarge(usize),
}

impl Mistake {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Mistake::NotJson { .. } | Mistake::Tls { .. } => Reason::ObjectInvalid,
            Mistake::TooLarge(_) => Reason::TooLarge,
            Mistake::NameMissing
            | Mistake::NameInvalid
            | Mistake::DataMissing
            | Mistake::Label(_)
            | Mistake::Annotation(_)
            | Mistake::AnnotationsTooLarge
            | Mistake::ObjectNameMissing(_)
            | Mistake::KeyMissing(_)
            | Mistake::KeyInvalid { .. }
            | Mistake::FileMissing { .. }
            | Mistake::TypeNeeds { .. } => Reason::ClassInvalid,
        }
    }
}

/// A text from the class, cut and on one line.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().take(EXCERPT).flat_map(char::escape_debug).try_for_each(|c| write!(f, "{c}"))
    }
}

struct FileList<'a>(&'a [String]);

impl fmt::Display for FileList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no files");
        }
        let (shown, more) = self.0.split_at(self.0.len().min(LISTED_FILES));
        for (at, name) in shown.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, Excerpt(name))?;
        }
        if more.is_empty() { Ok(()) } else { write!(f, " and {} more", more.len()) }
    }
}
