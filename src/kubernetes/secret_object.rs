//! Parses a Secret from a response of the API server.
//!
//! Pure. Values go straight into redacting types, and no error quotes the text.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::managed_fields::ManagedFields;
use super::pod_object;
use crate::formats::encoding;
use crate::model::{Owner, SecretBytes};

/// Identifies one state of one Secret; a write that names it fails if the Secret has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVersion {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub resource_version: String,
}

/// A Secret as the API server has it.
#[derive(Debug)]
pub struct StoredSecret {
    /// UID and resourceVersion.
    pub version: SecretVersion,
    /// Whether it has a deletionTimestamp.
    pub terminating: bool,
    /// `type`
    pub r#type: String,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// `data`, decoded.
    pub data: BTreeMap<String, SecretBytes>,
    /// `metadata.ownerReferences`
    pub owners: Vec<Owner>,
    /// `metadata.managedFields`
    pub managed_fields: ManagedFields,
}

#[derive(serde::Deserialize)]
struct Wire {
    metadata: ObjectMeta,
    #[serde(default, rename = "type")]
    r#type: String,
    #[serde(default)]
    data: Option<BTreeMap<String, Base64>>,
}

struct Base64(SecretBytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Base64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
        let mut bytes = encoding::base64(text).map_err(|_| E::custom("not base64"))?;
        // Moves the buffer out of its wrapper, so that no copy has to be wiped.
        Ok(Base64(SecretBytes::from(std::mem::take(&mut *bytes))))
    }
}

/// Parses a whole Secret.
///
/// # Errors
/// The text is not a Secret; the error does not say why.
pub(crate) fn read(text: &str) -> Result<StoredSecret, String> {
    // serde_json's own message may quote a part of the text.
    let Wire { metadata, r#type, data } = serde_json::from_str(text).map_err(|_| not_a_secret())?;
    let managed_fields = ManagedFields::new(metadata.managed_fields.as_deref().unwrap_or_default());
    let labels = metadata.labels.clone().unwrap_or_default();
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let version = SecretVersion {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
    };
    let terminating = metadata.deletion_timestamp.is_some();
    let data = data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    let owners = pod_object::owners(metadata.owner_references);
    Ok(StoredSecret { version, terminating, r#type, labels, annotations, data, owners, managed_fields })
}

/// Parses UID and resourceVersion from a response with at least the metadata.
///
/// # Errors
/// The text is not an object with metadata; the error does not say why.
pub(super) fn version(text: &str) -> Result<SecretVersion, String> {
    #[derive(serde::Deserialize)]
    struct Wire {
        metadata: ObjectMeta,
    }
    let Wire { metadata } = serde_json::from_str(text).map_err(|_| not_a_secret())?;
    let resource_version = metadata.resource_version.ok_or_else(not_a_secret)?;
    Ok(SecretVersion { uid: metadata.uid.unwrap_or_default(), resource_version })
}

fn not_a_secret() -> String {
    "the response is not a Secret".to_owned()
}
