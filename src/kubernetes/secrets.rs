//! Requests for single Kubernetes Secrets: get, create, apply, patch. Never lists, never watches.
//!
//! `crate::secret` decides what a Secret should contain. Writes ask for the response as metadata
//! only, so that no value comes back.
//!
//! # Guarantees
//! Values are in redacting types. `kube` never parses a response with values, because it logs a
//! response that it cannot parse. A message of the server that quotes a value is withheld.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Connection;
use super::error::{RequestError, SecretError};
use super::managed_fields::{ManagedFields, SecretManager};
use super::secret_object::{self, SecretVersion, StoredSecret};
use crate::formats::encoding;
use crate::model::{ExposeSecret as _, Namespace, Owner, ResourceName, SecretBytes};

/// The deadline of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Shorter values are not looked for in messages: they would match by chance.
const SHORTEST_REDACTED: usize = 4;

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

/// The content of a Secret, without its owners.
#[derive(Debug)]
pub struct SecretContent<'a> {
    /// `type`
    pub r#type: &'a str,
    /// `metadata.labels`
    pub labels: &'a BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: &'a BTreeMap<String, String>,
    /// `data`, not yet encoded.
    pub data: &'a BTreeMap<String, SecretBytes>,
}

/// The Secrets of the cluster, one by one, written as `manager`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Secrets {
    connection: Connection,
    manager: SecretManager,
}

impl Secrets {
    /// Requests on this connection; writes carry the manager's name.
    pub fn new(connection: Connection, manager: SecretManager) -> Secrets {
        Secrets { connection, manager }
    }

    /// The manager that writes.
    pub fn manager(&self) -> &SecretManager {
        &self.manager
    }

    /// Reads the whole Secret; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn get(&self, at: &SecretRef) -> Result<Option<StoredSecret>, SecretError> {
        let response = self.send(http::Request::get(path(at, "")), Vec::new(), "application/json").await;
        found(response)?.map(|text| secret_object::read(&text).map_err(SecretError::Unavailable)).transpose()
    }

    /// Reads UID and resourceVersion, without the values; `None` if the Secret does not exist.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn version(&self, at: &SecretRef) -> Result<Option<SecretVersion>, SecretError> {
        let response = self.send(http::Request::get(path(at, "")), Vec::new(), METADATA).await;
        found(response)?.map(|text| version(&text)).transpose()
    }

    /// Creates the Secret.
    ///
    /// # Errors
    /// [`SecretError::Exists`], and the others.
    pub async fn create(
        &self,
        at: &SecretRef,
        content: &SecretContent<'_>,
        owners: &[Owner],
    ) -> Result<SecretVersion, SecretError> {
        let metadata = json!({ "labels": content.labels, "annotations": content.annotations, "ownerReferences": references(owners) });
        let field_manager = self.manager.field_manager;
        let path = format!("/api/v1/namespaces/{}/secrets?fieldManager={field_manager}", at.namespace);
        let request = http::Request::post(path).header(CONTENT_TYPE, "application/json");
        self.write(request, at, metadata, Some(content)).await
    }

    /// Applies the content. Keys that this field manager applied before and does not list are
    /// removed.
    ///
    /// # Errors
    /// [`SecretError::Changed`] if the Secret no longer has the version `from`, and the others.
    pub async fn apply(
        &self,
        at: &SecretRef,
        from: &SecretVersion,
        content: &SecretContent<'_>,
    ) -> Result<SecretVersion, SecretError> {
        let metadata = json!({
            "labels": content.labels, "annotations": content.annotations,
            "uid": from.uid, "resourceVersion": from.resource_version,
        });
        self.write(patch(at, self.manager.field_manager, APPLY), at, metadata, Some(content)).await
    }

    /// Adds one owner reference, with a field manager of its own: no other apply removes it.
    ///
    /// # Errors
    /// [`SecretError::Changed`] if the Secret has another UID by now, and the others.
    pub async fn add_owner(&self, at: &SecretRef, uid: &str, owner: &Owner) -> Result<SecretVersion, SecretError> {
        // With a UID, an apply never creates: a Secret deleted meanwhile is a conflict.
        let metadata = json!({ "uid": uid, "ownerReferences": references(std::slice::from_ref(owner)) });
        let field_manager = format!("{}-owner-{}", self.manager.field_manager, owner.uid);
        self.write(patch(at, &field_manager, APPLY), at, metadata, None).await
    }

    /// Replaces all owner references.
    ///
    /// # Errors
    /// [`SecretError::Changed`] if the Secret no longer has the version `from`, and the others.
    pub async fn set_owners(
        &self,
        at: &SecretRef,
        from: &SecretVersion,
        owners: &[Owner],
    ) -> Result<SecretVersion, SecretError> {
        self.merge(at, from, json!({ "ownerReferences": references(owners) })).await
    }

    /// Replaces the managed fields.
    ///
    /// # Errors
    /// [`SecretError::Changed`] if the Secret no longer has the version `from`, and the others.
    pub async fn set_managed_fields(
        &self,
        at: &SecretRef,
        from: &SecretVersion,
        fields: &ManagedFields,
    ) -> Result<SecretVersion, SecretError> {
        self.merge(at, from, json!({ "managedFields": fields.entries() })).await
    }

    async fn merge(
        &self,
        at: &SecretRef,
        from: &SecretVersion,
        mut metadata: Value,
    ) -> Result<SecretVersion, SecretError> {
        metadata["uid"] = from.uid.as_str().into();
        metadata["resourceVersion"] = from.resource_version.as_str().into();
        self.write(patch(at, self.manager.field_manager, MERGE), at, metadata, None).await
    }

    async fn write(
        &self,
        request: http::request::Builder,
        at: &SecretRef,
        mut metadata: Value,
        content: Option<&SecretContent<'_>>,
    ) -> Result<SecretVersion, SecretError> {
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
            serde_json::to_vec(&body).map_err(|_| SecretError::Unavailable("it cannot be serialized".to_owned()))?;
        let response = self.send(request, body, METADATA).await;
        let text = response.map_err(|error| match content {
            Some(content) => withheld(error, content.data),
            None => error,
        });
        let text = text.map_err(SecretError::cut);
        version(&text?)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
        accept: &'static str,
    ) -> Result<String, SecretError> {
        let request = request.header(ACCEPT, accept).body(body);
        let request = request.map_err(|_| SecretError::Unavailable("its name cannot be part of a URL".to_owned()))?;
        match timeout(REQUEST_TIMEOUT, self.connection.client().request_text(request)).await {
            Ok(response) => response.map_err(SecretError::of),
            Err(_) => Err(SecretError::Unavailable(RequestError::timeout(REQUEST_TIMEOUT).to_string())),
        }
    }
}

fn path(at: &SecretRef, query: &str) -> String {
    format!("/api/v1/namespaces/{}/secrets/{}{query}", at.namespace, at.name)
}

fn patch(at: &SecretRef, field_manager: &str, patch_type: &'static str) -> http::request::Builder {
    let force = if patch_type == APPLY { "&force=true" } else { "" };
    http::Request::patch(path(at, &format!("?fieldManager={field_manager}{force}"))).header(CONTENT_TYPE, patch_type)
}

fn found(response: Result<String, SecretError>) -> Result<Option<String>, SecretError> {
    match response {
        Ok(text) => Ok(Some(text)),
        Err(SecretError::Gone) => Ok(None),
        Err(error) => Err(error.cut()),
    }
}

fn version(text: &str) -> Result<SecretVersion, SecretError> {
    secret_object::version(text).map_err(SecretError::Unavailable)
}

/// Owner references without `controller` and `blockOwnerDeletion`; the latter requires a right on
/// the owner's finalizers.
fn references(owners: &[Owner]) -> Value {
    let reference = |owner: &Owner| json!({ "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid.as_str() });
    owners.iter().map(reference).collect()
}

/// The error without a message that quotes a value: an admission policy may quote the whole object.
pub(super) fn withheld(error: SecretError, data: &BTreeMap<String, SecretBytes>) -> SecretError {
    let quotes = |message: &str| {
        data.values().map(|value| value.expose_secret()).filter(|value| value.len() >= SHORTEST_REDACTED).any(|value| {
            let plain = std::str::from_utf8(value).is_ok_and(|value| message.contains(value.trim()));
            plain || message.contains(encoding::to_base64(value).as_str())
        })
    };
    match error {
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
