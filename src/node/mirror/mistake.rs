//! What is wrong with one of a class's `secretObjects`, for the people who write classes.
//!
//! Pure. Names class, place, field and fix, and never holds a value; texts that come from the class are cut. A mistake
//! stops its own Secret and no other.

use std::fmt;

use super::tls::TlsError;
use crate::model::{ClassRef, InvalidName, Reason};

/// How many files an error lists.
const LISTED: usize = 20;
/// How much of a text from the class is shown, in characters.
const SHOWN: usize = 100;

/// What is wrong with one secretObject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("class {class}: spec.secretObjects[{at}]{}: {what}", Named(.name))]
pub(super) struct Mistake {
    /// The class.
    pub(super) class: ClassRef,
    /// Which of its secretObjects, counted from 0.
    pub(super) at: usize,
    /// Its secretName.
    pub(super) name: String,
    /// What is wrong.
    pub(super) what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum What {
    /// No name.
    #[error("secretName is empty: name the Secret that is to be written")]
    NameMissing,
    /// No Secret can have this name.
    #[error(
        "secretName is no name for a Secret: use lower-case letters, digits, '-' and '.', at most 253, a letter or digit at both ends"
    )]
    NameInvalid,
    /// The name is another secretObject's too.
    #[error("secretName is that of secretObjects[{0}] too: put all keys of a Secret into one secretObject")]
    NameTwice(usize),
    /// No keys.
    #[error("data is empty: list at least one objectName with its key")]
    DataMissing,
    /// The API server takes no such label.
    #[error("labels: {0}")]
    Label(InvalidName),
    /// The API server takes no such annotation.
    #[error("annotations: {0}")]
    Annotation(InvalidName),
    /// The API server takes no more.
    #[error("annotations have more than 262144 bytes together: shorten them")]
    AnnotationsTooLarge,
    /// An item without objectName.
    #[error("data[{0}].objectName is empty: name the file, which is the object's alias or name")]
    ObjectNameMissing(usize),
    /// An item without key.
    #[error("data[{0}].key is empty: name the key in the Secret")]
    KeyMissing(usize),
    /// No Secret can have this key.
    #[error("data[{at}].key {:?} is no key for a Secret: use letters, digits, '-', '_' and '.', at most 253", Shown(.key).to_string())]
    KeyInvalid {
        /// Which item.
        at: usize,
        /// The key.
        key: String,
    },
    /// No such file in the volume.
    #[error("data[{at}].objectName: file matching objectName {} not found in the pod; the volume has {}", Shown(.name), Listed(.files))]
    FileMissing {
        /// Which item.
        at: usize,
        /// The path that was looked for.
        name: String,
        /// The paths that are there.
        files: Vec<String>,
    },
    /// The type asks for a key.
    #[error("type {of} needs the key {key}: add it to data")]
    TypeNeeds {
        /// The type.
        of: &'static str,
        /// The key, or the keys of which one is needed.
        key: &'static str,
    },
    /// The type asks for JSON.
    #[error("data[{at}]: type {of} needs the file {} to be a JSON object, which it is not", Shown(.name))]
    NotJson {
        /// Which item.
        at: usize,
        /// The type.
        of: &'static str,
        /// The file.
        name: String,
    },
    /// Certificate or key cannot be had.
    #[error("data[{at}]: {key} from file {}: {source}", Shown(.name))]
    Tls {
        /// Which item.
        at: usize,
        /// The key in the Secret.
        key: String,
        /// The file.
        name: String,
        /// What is wrong with it.
        source: TlsError,
    },
    /// More than a Secret can hold.
    #[error("its values are {0} bytes long together; a Secret holds 1048576 at most: spread them over several")]
    TooLarge(usize),
}

impl Mistake {
    /// The reason of this mistake.
    pub(super) fn reason(&self) -> Reason {
        match self.what {
            What::NotJson { .. } | What::Tls { .. } => Reason::ObjectInvalid,
            What::TooLarge(_) => Reason::TooLarge,
            What::NameMissing
            | What::NameInvalid
            | What::NameTwice(_)
            | What::DataMissing
            | What::Label(_)
            | What::Annotation(_)
            | What::AnnotationsTooLarge
            | What::ObjectNameMissing(_)
            | What::KeyMissing(_)
            | What::KeyInvalid { .. }
            | What::FileMissing { .. }
            | What::TypeNeeds { .. } => Reason::ClassInvalid,
        }
    }
}

struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            name => write!(f, " (secretName {})", Shown(name)),
        }
    }
}

/// A text from the class, cut and on one line.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().take(SHOWN).flat_map(char::escape_debug).try_for_each(|c| write!(f, "{c}"))
    }
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no files");
        }
        let (shown, more) = self.0.split_at(self.0.len().min(LISTED));
        for (at, name) in shown.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, Shown(name))?;
        }
        if more.is_empty() { Ok(()) } else { write!(f, " and {} more", more.len()) }
    }
}
