//! Requests for single objects, whose URLs hold names.
//!
//! The only place that hands a name to `kube`, which puts it into the path as it is: `../` would name another object,
//! and `?` or `#` would end the path. So each name is of a checked type here. `watch` lists whole kinds and names none;
//! `secrets` makes its own requests from the same types.

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::Value;

use super::client::Connection;
use super::error::Failure;
use crate::model::{Namespace, ResourceName};

/// The objects of one kind: those of a namespace, or cluster-wide ones.
pub(super) struct Objects(Api<DynamicObject>);

impl Objects {
    /// The objects of a kind in `namespace`.
    pub(super) fn within(connection: &Connection, namespace: &Namespace, resource: &ApiResource) -> Objects {
        Objects(Api::namespaced_with(connection.client(), namespace.as_str(), resource))
    }

    /// The objects of a kind that has no namespaces.
    pub(super) fn cluster_wide(connection: &Connection, resource: &ApiResource) -> Objects {
        Objects(Api::all_with(connection.client(), resource))
    }

    /// Reads an object.
    pub(super) async fn get(&self, name: &ResourceName) -> Result<DynamicObject, Failure> {
        self.0.get(name.as_str()).await.map_err(|error| Failure::of(&error))
    }

    /// Creates an object, whose name stands in the object alone.
    pub(super) async fn create(&self, object: &DynamicObject) -> Result<DynamicObject, Failure> {
        self.0.create(&PostParams::default(), object).await.map_err(|error| Failure::of(&error))
    }

    /// Replaces the object of this name.
    pub(super) async fn replace(&self, name: &ResourceName, object: &DynamicObject) -> Result<DynamicObject, Failure> {
        self.0.replace(name.as_str(), &PostParams::default(), object).await.map_err(|error| Failure::of(&error))
    }

    /// Merges a change into the object of this name.
    pub(super) async fn merge(&self, name: &ResourceName, change: Value) -> Result<(), Failure> {
        let patched = self.0.patch(name.as_str(), &PatchParams::default(), &Patch::Merge(change)).await;
        patched.map(drop).map_err(|error| Failure::of(&error))
    }
}
