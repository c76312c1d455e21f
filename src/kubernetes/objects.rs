//! Requests for single objects, with names in their URLs.
//!
//! The only place that passes a name to `kube`, which does not escape it: `../` would address
//! another object, and `?` or `#` would end the path. So each name has a validated type. `watch`
//! uses no names; `secrets` builds its own requests from the same types.

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::Value;

use super::client::Connection;
use super::error::RequestError;
use crate::model::{Namespace, ResourceName};

/// The objects of one kind, in a namespace or cluster-scoped.
pub(super) struct Objects(Api<DynamicObject>);

impl Objects {
    /// The objects of a kind in `namespace`.
    pub(super) fn within(connection: &Connection, namespace: &Namespace, resource: &ApiResource) -> Objects {
        Objects(Api::namespaced_with(connection.client(), namespace.as_str(), resource))
    }

    /// The objects of a cluster-scoped kind.
    pub(super) fn cluster_wide(connection: &Connection, resource: &ApiResource) -> Objects {
        Objects(Api::all_with(connection.client(), resource))
    }

    pub(super) async fn get(&self, name: &ResourceName) -> Result<DynamicObject, RequestError> {
        self.0.get(name.as_str()).await.map_err(|error| RequestError::of(&error))
    }

    /// Creates an object; its name is in the object, not in the URL.
    pub(super) async fn create(&self, object: &DynamicObject) -> Result<DynamicObject, RequestError> {
        self.0.create(&PostParams::default(), object).await.map_err(|error| RequestError::of(&error))
    }

    pub(super) async fn replace(
        &self,
        name: &ResourceName,
        object: &DynamicObject,
    ) -> Result<DynamicObject, RequestError> {
        self.0.replace(name.as_str(), &PostParams::default(), object).await.map_err(|error| RequestError::of(&error))
    }

    /// Sends a merge patch.
    pub(super) async fn merge(&self, name: &ResourceName, change: Value) -> Result<(), RequestError> {
        let patched = self.0.patch(name.as_str(), &PatchParams::default(), &Patch::Merge(change)).await;
        patched.map(drop).map_err(|error| RequestError::of(&error))
    }
}
