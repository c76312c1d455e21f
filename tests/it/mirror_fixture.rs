//! The fixture of the mirror's tests: a namespace with classes, pods and their owners, and nodes of
//! its own.
//!
//! Pods and ReplicaSets are objects only. No controller acts on them, so each test sets the owners.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::apiserver::{CLASSES, Cluster, Rights, User, cluster, resource};
use crate::harness::{Node, Vault, harness};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SECRETS: (&str, &str) = ("Secret", "secrets");
pub(crate) const PODS: (&str, &str) = ("Pod", "pods");
pub(crate) const EVENTS: (&str, &str) = ("Event", "events");
const REPLICA_SETS: (&str, &str) = ("ReplicaSet", "replicasets");
const DRIVER: &str = "secrets-store.csi.k8s.io";

pub(crate) struct Fixture {
    pub(crate) cluster: &'static Cluster,
    pub(crate) vault: Vault,
    pub(crate) namespace: String,
}

impl Fixture {
    pub(crate) fn new() -> Result<Fixture> {
        let cluster = cluster()?;
        Ok(Fixture { cluster, vault: harness().vault(), namespace: cluster.namespace()? })
    }

    /// Returns the name of a node that only this test has.
    pub(crate) fn node_name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.namespace)
    }

    /// Starts a driver that mirrors, with the chart's RBAC rules.
    pub(crate) fn node(&self, suffix: &str, flags: &[&str]) -> Result<(Node, User)> {
        let user = self.cluster.user(Rights::Sync)?;
        let flags = ["--sync-secret=true"].iter().chain(flags);
        Ok((Node::start(self.setup(&user, suffix, flags.copied()))?, user))
    }

    pub(crate) fn setup<'a>(
        &self,
        user: &User,
        suffix: &str,
        flags: impl Iterator<Item = &'a str>,
    ) -> keyvault_csi_e2e::driver::DriverSetup {
        let mut setup = self.cluster.setup(user);
        setup.node_id = self.node_name(suffix);
        setup.flags.extend(flags.map(str::to_owned));
        setup
    }

    /// Creates a class that mounts these secrets of the vault and has these secretObjects.
    pub(crate) fn class(&self, name: &str, mounted: &[&str], secret_objects: &Value) -> Result<()> {
        self.class_of(name, &self.vault.parameters(mounted), secret_objects)
    }

    pub(crate) fn class_of(
        &self,
        name: &str,
        parameters: &std::collections::BTreeMap<String, String>,
        secret_objects: &Value,
    ) -> Result<()> {
        let spec = json!({ "provider": "azure", "parameters": parameters, "secretObjects": secret_objects });
        self.cluster.create(CLASSES, Some(&self.namespace), json!({ "metadata": { "name": name }, "spec": spec }))?;
        Ok(())
    }

    pub(crate) fn change_class(&self, name: &str, change: &Value) -> Result<()> {
        self.merge(CLASSES, name, change)
    }

    /// Changes an object by a merge patch.
    pub(crate) fn merge(&self, kind: (&str, &str), name: &str, change: &Value) -> Result<()> {
        self.merge_as("kubectl-edit", kind, name, change)
    }

    pub(crate) fn merge_as(&self, manager: &str, kind: (&str, &str), name: &str, change: &Value) -> Result<()> {
        let api = self.cluster.api(kind, Some(&self.namespace));
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.cluster.block_on(api.patch(name, &params, &Patch::Merge(change)))?;
        Ok(())
    }

    /// Deletes an object without a grace period.
    pub(crate) fn delete(&self, kind: (&str, &str), name: &str) -> Result<()> {
        let api = self.cluster.api(kind, Some(&self.namespace));
        self.cluster
            .block_on(api.delete(name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }))?;
        Ok(())
    }

    /// Creates a ReplicaSet, and returns its owner reference.
    pub(crate) fn replica_set(&self, name: &str) -> Result<Value> {
        let labels = json!({ "app": name });
        let object = json!({
            "metadata": { "name": name },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "i" }] } },
            },
        });
        let made = self.cluster.create(REPLICA_SETS, Some(&self.namespace), object)?;
        Ok(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": made.metadata.uid, "controller": true,
            "blockOwnerDeletion": true,
        }))
    }

    /// Creates a pod on a node with one volume of a class; `owner` owns it unless that is null.
    pub(crate) fn pod(&self, name: &str, suffix: &str, class: &str, owner: &Value) -> Result<Volume> {
        let mut volume = self.vault.volume(class);
        let csi = json!({ "driver": DRIVER, "readOnly": true, "volumeAttributes": { "secretProviderClass": class } });
        let mut metadata = json!({ "name": name });
        if !owner.is_null() {
            metadata["ownerReferences"] = json!([owner]);
        }
        let pod = json!({
            "metadata": metadata,
            "spec": {
                "nodeName": self.node_name(suffix),
                "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": volume.name, "csi": csi }],
            },
        });
        let made = self.cluster.create(PODS, Some(&self.namespace), pod)?;
        volume.namespace.clone_from(&self.namespace);
        name.clone_into(&mut volume.pod);
        volume.uid = made.metadata.uid.context("the pod has no UID")?;
        Ok(volume)
    }

    /// Creates a Secret under a manager's name, as a client without server-side apply does.
    pub(crate) fn put(&self, manager: &str, object: Value) -> Result<Value> {
        let mut object = object;
        object["apiVersion"] = "v1".into();
        object["kind"] = "Secret".into();
        let object = serde_json::from_value(object)?;
        let api = self.cluster.api(SECRETS, Some(&self.namespace));
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        Ok(serde_json::to_value(self.cluster.block_on(api.create(&params, &object))?)?)
    }

    /// Returns a Secret, if it exists.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<Value>> {
        let found = self.cluster.get(SECRETS, &self.namespace, name)?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    /// Waits until a Secret exists, and returns it.
    pub(crate) fn there(&self, name: &str) -> Result<Value> {
        wait_for(&format!("Secret {name} exists"), PATIENCE, || Ok(self.secret(name)?.is_some()))?;
        self.secret(name)?.context("the Secret is gone")
    }

    /// Waits until a Secret has this value, and returns the Secret.
    pub(crate) fn holds(&self, name: &str, key: &str, value: &str) -> Result<Value> {
        wait_for(&format!("{key} of Secret {name} is right"), PATIENCE, || {
            Ok(self.secret(name)?.is_some_and(|secret| decoded(&secret, key).as_deref() == Some(value)))
        })?;
        self.secret(name)?.context("the Secret is gone")
    }

    /// Returns the texts of the namespace's events with this reason.
    pub(crate) fn events(&self, reason: &str) -> Result<Vec<String>> {
        let events = self.cluster.list(EVENTS, &self.namespace)?;
        let texts = events.iter().filter(|event| event.data["reason"] == reason);
        let texts: Vec<String> =
            texts.map(|event| event.data["message"].as_str().unwrap_or_default().to_owned()).collect();
        texts.iter().for_each(|text| harness().remember(text));
        Ok(texts)
    }

    /// Waits for an event `FailedToCreateSecret` that has all these words, and returns its text.
    pub(crate) fn failure_event(&self, words: &[&str]) -> Result<String> {
        let matches = |text: &String| words.iter().all(|word| text.contains(word));
        wait_for(&format!("an event with {words:?}"), PATIENCE, || {
            Ok(self.events("FailedToCreateSecret")?.iter().any(matches))
        })?;
        self.events("FailedToCreateSecret")?.into_iter().find(|text| matches(text)).context("the event is gone")
    }
}

/// Returns the value of a Secret's key as text.
pub(crate) fn decoded(secret: &Value, key: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Returns the UIDs of a Secret's owners, sorted.
pub(crate) fn owners(secret: &Value) -> Vec<String> {
    let owners = secret["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let mut uids: Vec<String> = owners.iter().filter_map(|owner| owner["uid"].as_str().map(str::to_owned)).collect();
    uids.sort();
    uids
}

/// Returns a secretObject of type Opaque.
pub(crate) fn opaque(name: &str, data: &[(&str, &str)]) -> Value {
    let data: Vec<Value> = data.iter().map(|(object, key)| json!({ "objectName": object, "key": key })).collect();
    json!({ "secretName": name, "type": "Opaque", "data": data })
}

/// Returns the verbs with which a user wrote Secrets, in order.
pub(crate) fn writes(cluster: &Cluster, user: &User) -> Result<Vec<String>> {
    let calls = cluster.calls(user)?.into_iter();
    let calls = calls.filter(|call| call.resource == resource(SECRETS).plural);
    Ok(calls.map(|call| call.verb).filter(|verb| verb != "get").collect())
}
