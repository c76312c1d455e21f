//! From the text of a Secret to what we use of it.
//!
//! Pure. Values go from the text straight into redacting types, and no error quotes the text. `secrets` asks the server.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::pod_object;
use super::secret_fields::Writers;
use super::secrets::Revision;
use crate::formats::encoding;
use crate::model::{Owner, SecretBytes};

/// A Secret as it is in the cluster.
#[derive(Debug)]
pub struct StoredSecret {
    /// Which generation this is.
    pub revision: Revision,
    /// Whether it is being deleted.
    pub ending: bool,
    /// Its type.
    pub r#type: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its data.
    pub data: BTreeMap<String, SecretBytes>,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// Who wrote which field.
    pub writers: Writers,
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
        // The buffer moves out of its wrapper, so that no copy is left to wipe.
        Ok(Base64(SecretBytes::from(std::mem::take(&mut *bytes))))
    }
}

/// Reads a whole Secret.
///
/// # Errors
/// Something else than a Secret, without saying what.
pub(crate) fn read(text: &str) -> Result<StoredSecret, String> {
    // The library's own text may quote a piece.
    let Wire { metadata, r#type, data } = serde_json::from_str(text).map_err(|_| strange())?;
    let writers = Writers::new(metadata.managed_fields.as_deref().unwrap_or_default());
    let labels = metadata.labels.clone().unwrap_or_default();
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let revision = Revision {
        uid: metadata.uid.clone().unwrap_or_default(),
        version: metadata.resource_version.clone().unwrap_or_default(),
    };
    let ending = metadata.deletion_timestamp.is_some();
    let data = data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    let owners = pod_object::owners(metadata.owner_references);
    Ok(StoredSecret { revision, ending, r#type, labels, annotations, data, owners, writers })
}

/// Reads which generation an answer tells of.
///
/// # Errors
/// Something else than an object, without saying what.
pub(super) fn revision(text: &str) -> Result<Revision, String> {
    #[derive(serde::Deserialize)]
    struct Wire {
        metadata: ObjectMeta,
    }
    let Wire { metadata } = serde_json::from_str(text).map_err(|_| strange())?;
    let version = metadata.resource_version.ok_or_else(strange)?;
    Ok(Revision { uid: metadata.uid.unwrap_or_default(), version })
}

fn strange() -> String {
    "the answer is no Secret".to_owned()
}
