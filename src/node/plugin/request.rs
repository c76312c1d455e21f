//! Parses the provider protocol's JSON texts to a checked request.
//!
//! Pure. Checks in upstream's order (docs/reference/azure-provider.md#mount-decoding). An error
//! names field and place and never quotes a value: both objects may have tokens and secrets.

use std::collections::BTreeMap;

use keyvault_csi_proto::provider::MountRequest;
use serde_json::error::Category;

use crate::azure::provider::CLOUD_FILE;
use crate::model::{
    Caller, Class, ClassRef, ClassSpec, FileMode, InvalidName, PodInfoError, ResourceName, SecretString, attribute,
};

/// Why a request is refused before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidMount {
    #[error("{field} is not a JSON object of strings{or_null}: {what} in line {line}, column {column}")]
    NotStrings { field: &'static str, or_null: &'static str, what: &'static str, line: usize, column: usize },
    #[error("permission is not a decimal number from 0 to 511, such as 420 for 0644")]
    Permission,
    #[error("{0} is missing in the attributes: the CSIDriver object of the driver must have podInfoOnMount: true")]
    PodInfoMissing(&'static str),
    #[error("{key} of the attributes {source}")]
    Name { key: &'static str, source: InvalidName },
}

/// A checked Mount.
pub(super) struct Mount {
    /// The caller; its attributes are parameters and volume context together.
    pub(super) caller: Caller,
    pub(super) class: Class,
    /// The target path of the volume; empty if the driver does not send it.
    pub(super) target: String,
    /// The default mode of files.
    pub(super) mode: FileMode,
}

impl From<PodInfoError> for InvalidMount {
    fn from(error: PodInfoError) -> InvalidMount {
        match error {
            PodInfoError::Missing(key) => InvalidMount::PodInfoMissing(key),
            PodInfoError::Invalid { key, source } => InvalidMount::Name { key, source },
        }
    }
}

/// The name in errors of a class that the driver does not name.
const UNNAMED: &str = "unnamed";

/// Checks a Mount.
///
/// Ignores `current_object_version`, as upstream's provider does: the reply is always complete. The
/// driver writes the files, so only the pod's UID in `target_path` counts, and any path is
/// accepted.
pub(super) fn mount(message: &MountRequest) -> Result<Mount, InvalidMount> {
    let attributes: BTreeMap<String, Option<String>> =
        serde_json::from_str(&message.attributes).map_err(|error| not_strings("attributes", "", &error))?;
    let attributes: BTreeMap<String, String> = strings(attributes).collect();
    // Without nodePublishSecretRef drivers send null.
    let secrets: Option<BTreeMap<String, Option<String>>> =
        serde_json::from_str(&message.secrets).map_err(|error| not_strings("secrets", " or null", &error))?;
    let secrets = strings(secrets.unwrap_or_default());
    let secrets = secrets.map(|(key, value)| (key, SecretString::from(value))).collect();
    let mode = permission(&message.permission).ok_or(InvalidMount::Permission)?;
    let caller = Caller::parse(attributes, secrets)?;
    let name = caller.attributes().get(attribute::CLASS).map(String::as_str).filter(|name| !name.is_empty());
    // Only error texts use it, and not every driver sends it.
    let name = ResourceName::new(name.unwrap_or(UNNAMED));
    let name = name.map_err(|source| InvalidMount::Name { key: attribute::CLASS, source })?;
    let reference = ClassRef { namespace: caller.pod.namespace.clone(), name };
    let class = Class::new(reference, ClassSpec { parameters: of_class(caller.attributes()), ..ClassSpec::default() });
    let target = message.target_path.clone();
    Ok(Mount { caller, class, target, mode })
}

/// The parameters that a fetch reads from the class only. Drivers send class and attributes merged,
/// so all count as the class's; `keyvault::CloudFiles` limits which files they may name.
fn of_class(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    attributes.iter().filter(|(key, _)| *key == CLOUD_FILE).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A JSON null counts as an empty string, as it does in Go.
fn strings(map: BTreeMap<String, Option<String>>) -> impl Iterator<Item = (String, String)> {
    map.into_iter().map(|(key, value)| (key, value.unwrap_or_default()))
}

fn not_strings(field: &'static str, or_null: &'static str, error: &serde_json::Error) -> InvalidMount {
    let what = match error.classify() {
        Category::Data => "another type",
        Category::Eof => "a text that ends early",
        Category::Syntax | Category::Io => "a syntax error",
    };
    InvalidMount::NotStrings { field, or_null, what, line: error.line(), column: error.column() }
}

/// An unsigned number as JSON writes it: no sign, no quotes, no leading zero.
fn permission(text: &str) -> Option<FileMode> {
    FileMode::new(serde_json::from_str::<u32>(text).ok()?)
}
