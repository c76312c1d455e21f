//! Kubernetes Secrets: read one, create one, apply to one. Never lists and never watches.
//!
//! Knows what a request looks like and nothing of what should stand in a Secret; `mirror` decides that. Answers to writes
//! are asked for as metadata only, so that no value comes back.
//!
//! # Guarantees
//! Values are in redacting types, and the library never gets to parse an answer that holds them: it would log one that it
//! cannot read. A server's message that quotes a value is withheld.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Connection;
use super::error::{Failure, SecretError};
use super::secret_fields::Writers;
use super::secret_object::{self, StoredSecret};
use crate::formats::encoding;
use crate::model::{ExposeSecret as _, Namespace, Owner, ResourceName, SecretBytes};

/// Who writes the content of Secrets, on all nodes.
pub(super) const WRITER: &str = "keyvault-csi";
/// What stands before the owner's UID in the name of who writes an owner reference.
const OWNER_WRITER: &str = "keyvault-csi-owner-";

/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(15);
/// Values shorter than this are not looked for in messages: they are found in every text.
const TOLD_APART: usize = 4;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// Namespace and name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ResourceName,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a Secret holds, its owners apart.
#[derive(Debug)]
pub struct SecretContent<'a> {
    /// Its type.
    pub r#type: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its data.
    pub data: &'a BTreeMap<String, SecretBytes>,
}

/// Which generation of a Secret a write is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The Secret's UID.
    pub uid: String,
    /// Its `resourceVersion`.
    pub version: String,
}

/// The Secrets of the cluster, one by one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Secrets(Connection);

impl Secrets {
    /// Secrets behind this connection.
    pub fn new(connection: Connection) -> Secrets {
        Secrets(connection)
    }

    /// The Secret as it is; `None` when there is none.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn get(&self, at: &SecretRef) -> Result<Option<StoredSecret>, SecretError> {
        let answer = self.send(http::Request::get(path(at, "")), Vec::new(), "application/json").await;
        found(answer)?.map(|text| secret_object::read(&text).map_err(SecretError::Unavailable)).transpose()
    }

    /// Which generation of the Secret is there, without its values; `None` when there is none.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn revision(&self, at: &SecretRef) -> Result<Option<Revision>, SecretError> {
        let answer = self.send(http::Request::get(path(at, "")), Vec::new(), METADATA).await;
        found(answer)?.map(|text| revision(&text)).transpose()
    }

    /// Makes a Secret that is not there.
    ///
    /// # Errors
    /// [`SecretError::Exists`], and the others.
    pub async fn create(
        &self,
        at: &SecretRef,
        content: &SecretContent<'_>,
        owners: &[Owner],
    ) -> Result<Revision, SecretError> {
        let metadata = json!({ "labels": content.labels, "annotations": content.annotations, "ownerReferences": references(owners) });
        let request = http::Request::post(format!("/api/v1/namespaces/{}/secrets?fieldManager={WRITER}", at.namespace))
            .header(CONTENT_TYPE, "application/json");
        self.write(request, at, metadata, Some(content)).await
    }

    /// Applies the content to this generation of a Secret: what we applied before and do not any more is removed.
    ///
    /// # Errors
    /// [`SecretError::Changed`] when it is another generation by now, and the others.
    pub async fn apply(
        &self,
        at: &SecretRef,
        to: &Revision,
        content: &SecretContent<'_>,
    ) -> Result<Revision, SecretError> {
        let metadata = json!({
            "labels": content.labels, "annotations": content.annotations, "uid": to.uid, "resourceVersion": to.version,
        });
        self.write(patch(at, WRITER, APPLY), at, metadata, Some(content)).await
    }

    /// Adds one owner reference, which nobody else's write takes away.
    ///
    /// # Errors
    /// [`SecretError::Changed`] when it is another Secret by now, and the others.
    pub async fn add_owner(&self, at: &SecretRef, uid: &str, owner: &Owner) -> Result<Revision, SecretError> {
        // With the UID an apply never makes a Secret: one that went meanwhile is a conflict.
        let metadata = json!({ "uid": uid, "ownerReferences": references(std::slice::from_ref(owner)) });
        let writer = format!("{OWNER_WRITER}{}", owner.uid);
        self.write(patch(at, &writer, APPLY), at, metadata, None).await
    }

    /// Makes these the owners, and nobody else.
    ///
    /// # Errors
    /// [`SecretError::Changed`] when it is another generation by now, and the others.
    pub async fn set_owners(&self, at: &SecretRef, to: &Revision, owners: &[Owner]) -> Result<Revision, SecretError> {
        let metadata = json!({ "uid": to.uid, "resourceVersion": to.version, "ownerReferences": references(owners) });
        self.write(patch(at, WRITER, MERGE), at, metadata, None).await
    }

    /// Says who wrote which field.
    ///
    /// # Errors
    /// [`SecretError::Changed`] when it is another generation by now, and the others.
    pub async fn set_writers(&self, at: &SecretRef, to: &Revision, writers: &Writers) -> Result<Revision, SecretError> {
        let metadata = json!({ "uid": to.uid, "resourceVersion": to.version, "managedFields": writers.entries() });
        self.write(patch(at, WRITER, MERGE), at, metadata, None).await
    }

    async fn write(
        &self,
        request: http::request::Builder,
        at: &SecretRef,
        mut metadata: Value,
        content: Option<&SecretContent<'_>>,
    ) -> Result<Revision, SecretError> {
        metadata["namespace"] = at.namespace.as_str().into();
        metadata["name"] = at.name.as_str().into();
        let body = Body {
            api_version: "v1",
            kind: "Secret",
            metadata,
            r#type: content.map(|content| content.r#type),
            data: content.map(|content| Data(content.data)),
        };
        let body =
            serde_json::to_vec(&body).map_err(|_| SecretError::Unavailable("it cannot be written".to_owned()))?;
        let answer = self.send(request, body, METADATA).await;
        let text = answer.map_err(|failure| match content {
            Some(content) => withheld(failure, content.data),
            None => failure,
        });
        let text = text.map_err(SecretError::cut);
        revision(&text?)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
        accept: &'static str,
    ) -> Result<String, SecretError> {
        let request = request.header(ACCEPT, accept).body(body);
        let request = request.map_err(|_| SecretError::Unavailable("its name makes no URL".to_owned()))?;
        match timeout(ANSWER, self.0.client().request_text(request)).await {
            Ok(answer) => answer.map_err(SecretError::of),
            Err(_) => Err(SecretError::Unavailable(Failure::timeout(ANSWER).to_string())),
        }
    }
}

fn path(at: &SecretRef, query: &str) -> String {
    format!("/api/v1/namespaces/{}/secrets/{}{query}", at.namespace, at.name)
}

fn patch(at: &SecretRef, writer: &str, how: &'static str) -> http::request::Builder {
    let force = if how == APPLY { "&force=true" } else { "" };
    http::Request::patch(path(at, &format!("?fieldManager={writer}{force}"))).header(CONTENT_TYPE, how)
}

fn found(answer: Result<String, SecretError>) -> Result<Option<String>, SecretError> {
    match answer {
        Ok(text) => Ok(Some(text)),
        Err(SecretError::Gone) => Ok(None),
        Err(failure) => Err(failure.cut()),
    }
}

fn revision(text: &str) -> Result<Revision, SecretError> {
    secret_object::revision(text).map_err(SecretError::Unavailable)
}

/// References without `controller` and `blockOwnerDeletion`: the latter needs a right on the owner's finalizers.
fn references(owners: &[Owner]) -> Value {
    let one = |owner: &Owner| json!({ "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid.as_str() });
    owners.iter().map(one).collect()
}

/// A failure whose text does not quote a value: an admission policy may put anything into its message.
pub(super) fn withheld(failure: SecretError, data: &BTreeMap<String, SecretBytes>) -> SecretError {
    let quotes = |message: &str| {
        data.values().map(|value| value.expose_secret()).filter(|value| value.len() >= TOLD_APART).any(|value| {
            let plain = std::str::from_utf8(value).is_ok_and(|value| message.contains(value.trim()));
            plain || message.contains(encoding::to_base64(value).as_str())
        })
    };
    match failure {
        SecretError::Forbidden(message) if quotes(&message) => SecretError::Forbidden(WITHHELD.to_owned()),
        SecretError::Refused(message) if quotes(&message) => SecretError::Refused(WITHHELD.to_owned()),
        SecretError::Unavailable(message) if quotes(&message) => SecretError::Unavailable(WITHHELD.to_owned()),
        other @ (SecretError::Exists
        | SecretError::Changed
        | SecretError::Gone
        | SecretError::OwnersForbidden
        | SecretError::Forbidden(_)
        | SecretError::Refused(_)
        | SecretError::Unavailable(_)) => other,
    }
}

const WITHHELD: &str = "(the server's message quotes a value of the Secret and is withheld)";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

struct Data<'a>(&'a BTreeMap<String, SecretBytes>);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.0.iter().map(|(key, value)| (key, encoding::to_base64(value.expose_secret())));
        serializer.collect_map(pairs.map(|(key, text)| (key, Shown(text))))
    }
}

struct Shown(encoding::Text);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
