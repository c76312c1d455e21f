mod layout;
mod locks;
mod target;
mod writer;

use crate::model::{FileMode, FileName, Payload, SecretFile};

/// A payload of these files: path, mode, content.
fn payload(files: &[(&str, u32, &str)]) -> Payload {
    let files = files.iter().map(|(name, mode, content)| SecretFile {
        name: FileName::new(name).unwrap(),
        mode: FileMode::new(*mode).unwrap(),
        content: content.as_bytes().to_vec().into(),
    });
    Payload::new(files.collect(), vec![]).unwrap()
}
