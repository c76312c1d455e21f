//! ClusterRoles for the drivers of tests:
//! the rules of the shipped manifests, a part of them, or none.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Cluster;

const GROUP: &str = "secrets-store.csi.x-k8s.io";

/// Creates a ClusterRole for each group of users, and binds it.
pub(super) fn grant(cluster: &Cluster) -> Result<()> {
    let all = shipped(&["secretproviderclasses-role"])?;
    let get = json!([{ "apiGroups": [GROUP], "resources": ["secretproviderclasses"], "verbs": ["get"] }]);
    let sync = shipped(&["secretproviderclasses-role", "secretprovidersyncing-role"])?;
    let rotation = shipped(&["secretproviderclasses-role", "secretproviderrotation-role"])?;
    let without = sync.as_array().context("no rules")?.iter().filter(|rule| rule["resources"] != json!(["secrets"]));
    let without: Value = without.cloned().collect();
    for (name, rules) in
        [("all", all), ("get-only", get), ("sync", sync.clone()), ("rotation", rotation), ("all-but-secrets", without)]
    {
        let role = json!({ "metadata": { "name": name }, "rules": rules });
        cluster.create(("ClusterRole", "clusterroles"), None, role)?;
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name }],
        });
        cluster.create(("ClusterRoleBinding", "clusterrolebindings"), None, binding)?;
    }
    Ok(())
}

/// The rules of these ClusterRoles in `manifests/deploy`, joined.
pub(crate) fn shipped(roles: &[&str]) -> Result<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/deploy");
    let mut rules = Vec::new();
    for file in ["2-rbac.yaml", "rotation-and-sync/1-rbac.yaml"] {
        let text = fs::read_to_string(folder.join(file))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        for object in objects.iter().filter(|object| object["kind"] == "ClusterRole") {
            if roles.iter().any(|role| object["metadata"]["name"] == *role) {
                rules.extend(object["rules"].as_array().context("no rules")?.clone());
            }
        }
    }
    Ok(rules.into())
}
