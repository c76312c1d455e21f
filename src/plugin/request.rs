//! From the provider protocol's JSON texts to what a fetch asks for.
//!
//! Pure. Checked in upstream's order (spec/azure-provider.md §1.2). A text of an error names field and place and never quotes
//! a value: both objects may hold tokens and secrets.

use std::collections::BTreeMap;

use keyvault_csi_proto::provider::MountRequest;
use serde_json::error::Category;

use crate::model::{Class, ClassRef, ClassSpec, FileMode, PodRef, SecretString};

/// Why a request is refused before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{field} is not a JSON object of strings{or_null}: {what} in line {line}, column {column}")]
    NotStrings { field: &'static str, or_null: &'static str, what: &'static str, line: usize, column: usize },
    #[error("permission is not a decimal number from 0 to 511, such as 420 for 0644")]
    Permission,
    #[error("{0} is missing in the attributes: the CSIDriver object of the driver must have podInfoOnMount: true")]
    PodInfoMissing(&'static str),
}

/// A checked Mount.
///
/// Not printable: attributes and secrets hold tokens.
pub(super) struct Mount {
    pub(super) pod: PodRef,
    pub(super) class: Class,
    /// The attributes: parameters and volume context together.
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, SecretString>,
    /// Where the driver has the volume; empty if it does not say.
    pub(super) target: String,
    /// The mode of files that have none of their own.
    pub(super) mode: FileMode,
}

const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const CLASS: &str = "secretProviderClass";

/// Checks a Mount.
///
/// `current_object_version` is not looked at, as upstream's provider does not: the driver is always given everything. It also
/// writes, so that of `target_path` only the pod's UID counts, and any path will do.
pub(super) fn mount(message: &MountRequest) -> Result<Mount, Refusal> {
    let attributes: BTreeMap<String, Option<String>> =
        serde_json::from_str(&message.attributes).map_err(|error| not_strings("attributes", "", &error))?;
    let attributes: BTreeMap<String, String> = strings(attributes).collect();
    // Without nodePublishSecretRef drivers send null.
    let secrets: Option<BTreeMap<String, Option<String>>> =
        serde_json::from_str(&message.secrets).map_err(|error| not_strings("secrets", " or null", &error))?;
    let secrets = strings(secrets.unwrap_or_default()).map(|(key, value)| (key, SecretString::from(value))).collect();
    let mode = permission(&message.permission).ok_or(Refusal::Permission)?;
    let text = |key: &str| attributes.get(key).cloned().unwrap_or_default();
    let required =
        |key: &'static str| Some(text(key)).filter(|value| !value.is_empty()).ok_or(Refusal::PodInfoMissing(key));
    let pod = PodRef { name: required(POD_NAME)?, namespace: required(POD_NAMESPACE)?, uid: text(POD_UID) };
    let reference = ClassRef { namespace: pod.namespace.clone(), name: text(CLASS) };
    let (class, target) = (Class::new(reference, ClassSpec::default()), message.target_path.clone());
    Ok(Mount { pod, class, attributes, secrets, target, mode })
}

/// A JSON null counts as an empty string, as it does in Go.
fn strings(map: BTreeMap<String, Option<String>>) -> impl Iterator<Item = (String, String)> {
    map.into_iter().map(|(key, value)| (key, value.unwrap_or_default()))
}

fn not_strings(field: &'static str, or_null: &'static str, error: &serde_json::Error) -> Refusal {
    let what = match error.classify() {
        Category::Data => "another type",
        Category::Eof => "a text that ends early",
        Category::Syntax | Category::Io => "a syntax error",
    };
    Refusal::NotStrings { field, or_null, what, line: error.line(), column: error.column() }
}

/// An unsigned number as JSON writes it: no sign, no quotes, no leading zero.
fn permission(text: &str) -> Option<FileMode> {
    FileMode::new(serde_json::from_str::<u32>(text).ok()?)
}
