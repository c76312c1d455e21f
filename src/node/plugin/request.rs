//! From the provider protocol's JSON texts to what a fetch asks for.
//!
//! Pure. Checked in upstream's order (docs/reference/azure-provider.md#mount-decoding). A text of
//! an error names field and place and never quotes a value: both objects may hold tokens and
//! secrets.

use std::collections::BTreeMap;

use keyvault_csi_proto::provider::MountRequest;
use serde_json::error::Category;

use crate::azure::provider::CLOUD_FILE;
use crate::model::{
    Class, ClassRef, ClassSpec, FileMode, InvalidName, Namespace, PodRef, ResourceName, SecretString, Uid,
};

/// Why a request is refused before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
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
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
const CLASS: &str = "secretProviderClass";
/// What errors call the class of a driver that does not name it.
const UNNAMED: &str = "unnamed";

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
    let text = |key: &str| attributes.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let required = |key: &'static str| text(key).ok_or(Refusal::PodInfoMissing(key));
    let invalid = |key: &'static str| move |source| Refusal::Name { key, source };
    let (name, namespace) = (required(POD_NAME)?, required(POD_NAMESPACE)?);
    if let Some(account) = text(SERVICE_ACCOUNT) {
        ResourceName::new(account).map_err(invalid(SERVICE_ACCOUNT))?;
    }
    let pod = PodRef {
        name: ResourceName::new(name).map_err(invalid(POD_NAME))?,
        namespace: Namespace::new(namespace).map_err(invalid(POD_NAMESPACE))?,
        uid: match text(POD_UID) {
            Some(uid) => Uid::new(uid).map_err(invalid(POD_UID))?.into(),
            None => String::new(),
        },
    };
    // Nothing is looked up by it: errors name the class, and not every driver has to.
    let class = ResourceName::new(text(CLASS).unwrap_or(UNNAMED)).map_err(invalid(CLASS))?;
    let reference = ClassRef { namespace: pod.namespace.clone(), name: class };
    let class = Class::new(reference, ClassSpec { parameters: of_class(&attributes), ..ClassSpec::default() });
    let target = message.target_path.clone();
    Ok(Mount { pod, class, attributes, secrets, target, mode })
}

/// What a fetch takes from the class only. Class and attributes come merged, so that all of it counts as the class's;
/// what such a parameter may name is limited elsewhere (`keyvault::CloudFiles`).
fn of_class(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    attributes.iter().filter(|(key, _)| *key == CLOUD_FILE).map(|(key, value)| (key.clone(), value.clone())).collect()
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
