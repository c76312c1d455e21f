//! What the driver writes to a real API server about volumes:
//! statuses as upstream has them, and few events.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::Volume;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::apiserver::{Cluster, Rights, STATUSES, cluster};
use crate::harness::{Node, Vault, harness};

trials! { "cluster_reports":
    a_published_volume_has_upstreams_status,
    a_quiet_node_writes_nothing,
    a_status_of_upstreams_driver_is_adopted,
    a_pod_that_moved_takes_its_status_along,
    an_object_without_labels_and_status_is_filled,
    two_volumes_of_one_class_share_a_status,
    a_pod_whose_name_is_taken_gets_another,
    long_names_are_cut,
    a_status_that_cannot_be_written_holds_up_no_pod,
    a_failed_publish_is_reported_once,
    the_columns_of_kubectl_are_filled,
}

const PATIENCE: Duration = Duration::from_secs(60);
const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";
const EVENTS: (&str, &str) = ("Event", "events");

fn volume(vault: &Vault, namespace: &str, pod: &str, class: &str) -> Volume {
    Volume { namespace: namespace.to_owned(), pod: pod.to_owned(), ..vault.volume(class) }
}

/// A namespace with the class `demo`, which mounts the secrets `b` and `a`.
fn fixture(cluster: &Cluster) -> Result<(Vault, String)> {
    let vault = harness().vault();
    vault.set("b");
    vault.set("a");
    let namespace = cluster.namespace()?;
    cluster.class(&namespace, "demo", &vault, &["b", "a"])?;
    Ok((vault, namespace))
}

fn status(cluster: &Cluster, namespace: &str, name: &str) -> Result<DynamicObject> {
    wait_for("the status is there", PATIENCE, || Ok(cluster.get(STATUSES, namespace, name)?.is_some()))?;
    cluster.get(STATUSES, namespace, name)?.context("the status was deleted")
}

/// Waits until a status has this value at this path.
fn wait_for_field(cluster: &Cluster, namespace: &str, name: &str, path: &str, value: &Value) -> Result<DynamicObject> {
    wait_for(&format!("{path} is {value}"), PATIENCE, || {
        Ok(serde_json::to_value(status(cluster, namespace, name)?)?.pointer(path) == Some(value))
    })?;
    status(cluster, namespace, name)
}

/// Sets a secret to a new value and returns its version.
fn set(vault: &Vault, name: &str) -> String {
    harness().azure().set_secret(&vault.name, name, &harness().secret(name))
}

/// The objects of the class `demo` as a status lists them:
/// sorted, in whatever order the class has them.
fn objects(a: &str, b: &str) -> Value {
    json!([{ "id": "secret/a", "version": a }, { "id": "secret/b", "version": b }])
}

/// A status as upstream's driver writes it.
fn as_upstream(volume: &Volume, node: &str, target: &str, objects: &Value) -> Value {
    json!({
        "metadata": {
            "name": format!("{}-{}-demo", volume.pod, volume.namespace),
            "labels": { NODE_LABEL: node },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": volume.pod, "uid": volume.uid }],
        },
        "status": {
            "podName": volume.pod, "secretProviderClassName": "demo", "mounted": true, "targetPath": target,
            "objects": objects,
        },
    })
}

fn a_published_volume_has_upstreams_status() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, _) = cluster.node()?;
    let (a, b) = (set(&vault, "a"), set(&vault, "b"));
    let volume = volume(&vault, &namespace, "web", "demo");
    let target = node.publish(&volume)?;
    let found = status(cluster, &namespace, &format!("web-{namespace}-demo"))?;
    let value = serde_json::to_value(&found)?;
    let upstream = as_upstream(&volume, "node-1", &target.display().to_string(), &objects(&a, &b));
    for path in ["/metadata/labels", "/metadata/ownerReferences"] {
        assert_eq!(value.pointer(path), upstream.pointer(path));
    }
    for (key, expected) in upstream["status"].as_object().context("no status")? {
        assert_eq!(&value["status"][key], expected, "{key}");
    }
    ensure!(value["status"]["lastChanged"].is_string());
    assert_eq!(value["status"].as_object().map(serde_json::Map::len), Some(6));
    Ok(())
}

fn a_quiet_node_writes_nothing() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, user) = cluster.node()?;
    let volume = volume(&vault, &namespace, "web", "demo");
    node.publish(&volume)?;
    status(cluster, &namespace, &format!("web-{namespace}-demo"))?;
    for _ in 0..20 {
        node.publish(&volume)?;
    }
    // The event of a failure marks a position in the audit log.
    node.refused(&self::volume(&vault, &namespace, "web", "absent"))?;
    wait_for("the mark is there", PATIENCE, || Ok(cluster.count(&user, "create", EVENTS.1)? == 1))?;
    let calls = cluster.calls(&user)?;
    let writes = calls.iter().filter(|call| ["create", "update", "patch", "delete"].contains(&call.verb.as_str()));
    let written: Vec<&str> = writes.map(|call| call.resource.as_str()).collect();
    assert_eq!(written, [STATUSES.1, EVENTS.1]);
    assert_eq!(cluster.count(&user, "get", STATUSES.1)?, 0);
    Ok(())
}

fn a_status_of_upstreams_driver_is_adopted() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, user) = cluster.node()?;
    let volume = volume(&vault, &namespace, "web", "demo");
    let target = node.kubelet.target(&volume).display().to_string();
    let (a, b) = (set(&vault, "a"), set(&vault, "b"));
    let old = as_upstream(&volume, "node-1", &target, &objects(&a, &b));
    let made = cluster.create(STATUSES, Some(&namespace), old)?;
    node.publish(&volume)?;
    // The status is complete: the driver reads it and does not update it.
    wait_for("the driver reads the status", PATIENCE, || Ok(cluster.count(&user, "get", STATUSES.1)? == 1))?;
    let name = format!("web-{namespace}-demo");
    let calls = cluster.calls(&user)?;
    ensure!(!calls.iter().any(|call| call.verb == "update"), "{calls:?}");
    assert_eq!(status(cluster, &namespace, &name)?.metadata.resource_version, made.metadata.resource_version);
    // After a new version of an object, the driver updates the status.
    let a = set(&vault, "a");
    node.kubelet.unpublish(&volume)?;
    node.publish(&volume)?;
    let new = wait_for_field(cluster, &namespace, &name, "/status/objects", &objects(&a, &b))?;
    assert_eq!(new.metadata.uid, made.metadata.uid);
    wait_for("the driver replaced the status once", PATIENCE, || Ok(cluster.count(&user, "update", STATUSES.1)? == 1))
}

fn a_pod_that_moved_takes_its_status_along() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, _) = cluster.node()?;
    let mut before = volume(&vault, &namespace, "web-0", "demo");
    let (a, b) = (set(&vault, "a"), set(&vault, "b"));
    let old = as_upstream(&before, "old-node", "/old", &objects("old", "old"));
    let made = cluster.create(STATUSES, Some(&namespace), old)?;
    before.uid = vault.volume("demo").uid;
    let target = node.publish(&before)?;
    let name = format!("web-0-{namespace}-demo");
    let target = target.display().to_string();
    let new = wait_for_field(cluster, &namespace, &name, "/status/targetPath", &target.into())?;
    assert_eq!(new.metadata.uid, made.metadata.uid);
    assert_eq!(new.metadata.labels.context("no labels")?[NODE_LABEL], "node-1");
    let owners = new.metadata.owner_references.context("no owners")?;
    assert_eq!((owners.len(), &owners[0].uid), (1, &before.uid));
    assert_eq!(new.data["status"]["objects"], objects(&a, &b));
    Ok(())
}

fn an_object_without_labels_and_status_is_filled() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, _) = cluster.node()?;
    let name = format!("web-{namespace}-demo");
    cluster.create(STATUSES, Some(&namespace), json!({ "metadata": { "name": name } }))?;
    node.publish(&volume(&vault, &namespace, "web", "demo"))?;
    let new = wait_for_field(cluster, &namespace, &name, "/status/mounted", &true.into())?;
    assert_eq!(new.metadata.labels.context("no labels")?[NODE_LABEL], "node-1");
    Ok(())
}

fn two_volumes_of_one_class_share_a_status() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, user) = cluster.node()?;
    let first = volume(&vault, &namespace, "web", "demo");
    let second = Volume { name: "another".to_owned(), ..first.clone() };
    let one = node.publish(&first)?.display().to_string();
    let name = format!("web-{namespace}-demo");
    wait_for_field(cluster, &namespace, &name, "/status/targetPath", &one.as_str().into())?;
    let two = node.publish(&second)?.display().to_string();
    let mut both = [one.clone(), two];
    both.sort();
    let found = wait_for_field(cluster, &namespace, &name, "/status/targetPaths", &json!(both))?;
    assert_eq!(found.data["status"]["targetPath"], one);
    // A second publish of either writes nothing: each keeps the other's part.
    for volume in [&first, &second] {
        node.kubelet.unpublish(volume)?;
        node.publish(volume)?;
    }
    wait_for("the driver read the status for both", PATIENCE, || Ok(cluster.count(&user, "get", STATUSES.1)? == 3))?;
    assert_eq!(cluster.count(&user, "update", STATUSES.1)?, 1);
    Ok(())
}

fn a_pod_whose_name_is_taken_gets_another() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, _) = cluster.node()?;
    // Pod web with class <namespace>-demo, and pod web-<namespace>
    // with class demo, have the same plain name.
    cluster.class(&namespace, &format!("{namespace}-demo"), &vault, &["a"])?;
    node.publish(&volume(&vault, &namespace, "web", &format!("{namespace}-demo")))?;
    let name = format!("web-{namespace}-{namespace}-demo");
    status(cluster, &namespace, &name)?;
    let other = format!("web-{namespace}");
    node.publish(&volume(&vault, &namespace, &other, "demo"))?;
    wait_for("both have a status", PATIENCE, || Ok(cluster.list(STATUSES, &namespace)?.len() == 2))?;
    let all = cluster.list(STATUSES, &namespace)?;
    let mut pods: Vec<_> = all.iter().map(|status| status.data["status"]["podName"].clone()).collect();
    pods.sort_by_key(ToString::to_string);
    assert_eq!(pods, [json!("web"), json!(other)]);
    Ok(())
}

fn long_names_are_cut() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let user = cluster.user(Rights::All)?;
    let mut setup = cluster.setup(&user);
    setup.node_id = "a-long-node-name.".repeat(8) + "example";
    let (pod, class) = ("p".repeat(180), "c".repeat(100));
    cluster.class(&namespace, &class, &vault, &["a"])?;
    let node = Node::start(setup)?;
    node.publish(&volume(&vault, &namespace, &pod, &class))?;
    wait_for("the status is there", PATIENCE, || Ok(cluster.list(STATUSES, &namespace)?.len() == 1))?;
    let all = cluster.list(STATUSES, &namespace)?;
    let metadata = &all[0].metadata;
    assert_eq!(metadata.name.as_deref().map(str::len), Some(253));
    let label = &metadata.labels.as_ref().context("no labels")?[NODE_LABEL];
    ensure!(label.len() <= 63 && label.starts_with("a-long-node-name."), "{label}");
    assert_eq!(all[0].data["status"]["podName"], pod);
    Ok(())
}

fn a_status_that_cannot_be_written_holds_up_no_pod() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let user = cluster.user(Rights::GetOnly)?;
    let node = Node::start(cluster.setup(&user))?;
    let volume = volume(&vault, &namespace, "web", "demo");
    node.publish(&volume)?;
    wait_for("the driver retries", PATIENCE, || Ok(cluster.count(&user, "create", STATUSES.1)? >= 3))?;
    ensure!(node.log().contains("the volume is complete, and the write is retried"));
    assert_eq!(node.log().matches("cannot write the SecretProviderClassPodStatus").count(), 1);
    // The driver forgets an unpublished volume, and so it terminates at once.
    node.kubelet.unpublish(&volume)?;
    ensure!(node.driver.terminate()?.success());
    Ok(())
}

fn a_failed_publish_is_reported_once() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, user) = cluster.node()?;
    let volume = volume(&vault, &namespace, "web", "absent");
    for _ in 0..10 {
        node.refused(&volume)?;
    }
    wait_for("the event is there", PATIENCE, || Ok(!cluster.list(EVENTS, &namespace)?.is_empty()))?;
    let events = cluster.list(EVENTS, &namespace)?;
    let event = &events[0].data;
    assert_eq!(event["involvedObject"]["uid"], volume.uid);
    assert_eq!(event["involvedObject"]["kind"], "Pod");
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("FailedMountClassNotFound")));
    assert_eq!(event["source"], json!({ "component": "secrets-store.csi.k8s.io", "host": "node-1" }));
    let text = event["message"].as_str().context("no message")?;
    ensure!(text.contains(&format!("failed to get secretproviderclass {namespace}/absent: not found")), "{text}");
    harness().remember(text);
    // A failure of another kind is reported. By then the driver has handled all ten.
    vault.set("c");
    cluster.class(&namespace, "faulty", &vault, &["absent-object"])?;
    node.refused(&Volume { attributes: [("secretProviderClass".to_owned(), "faulty".to_owned())].into(), ..volume })?;
    wait_for("the second event is there", PATIENCE, || Ok(cluster.list(EVENTS, &namespace)?.len() == 2))?;
    for event in cluster.list(EVENTS, &namespace)? {
        harness().remember(&event.data.to_string());
    }
    wait_for("two events were sent", PATIENCE, || Ok(cluster.count(&user, "create", EVENTS.1)? == 2))
}

fn the_columns_of_kubectl_are_filled() -> Result<()> {
    let cluster = cluster()?;
    let (vault, namespace) = fixture(cluster)?;
    let (node, _) = cluster.node()?;
    let volume = volume(&vault, &namespace, "web", "demo");
    let target = node.publish(&volume)?.display().to_string();
    status(cluster, &namespace, &format!("web-{namespace}-demo"))?;
    let rows = |plural: &str| -> Result<(Vec<Value>, Vec<Value>)> {
        let path = format!("/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{namespace}/{plural}");
        let request = http::Request::get(path).header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1");
        let table: Value = cluster.block_on(cluster.client().request(request.body(Vec::new())?))?;
        let columns = table["columnDefinitions"].as_array().context("no columns")?;
        let cells = table["rows"][0]["cells"].as_array().context("no cells")?;
        Ok((columns.iter().map(|column| column["name"].clone()).collect(), cells.clone()))
    };
    let (columns, cells) = rows("secretproviderclasses")?;
    assert_eq!(columns, ["Name", "Provider", "Vault", "Tenant", "Age"]);
    assert_eq!(cells[1..4], [json!("azure"), json!(vault.name), json!(vault.tenant)]);
    let (columns, cells) = rows("secretproviderclasspodstatuses")?;
    assert_eq!(columns, ["Name", "Pod", "Class", "Mounted", "Changed", "Error", "Node", "Objects", "Target", "Age"]);
    assert_eq!(cells[1..3], [json!("web"), json!("demo")]);
    assert_eq!(cells[6], "node-1");
    assert_eq!(cells[8], target);
    Ok(())
}
