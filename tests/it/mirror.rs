//! The mirror into Kubernetes Secrets, on a real API server: what the driver writes and when, and
//! what it never writes.

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::{Value, json};

use crate::apiserver::Rights;
use crate::harness::{Node, harness};
use crate::mirror_fixture::{Fixture, PATIENCE, PODS, SECRETS, decoded, opaque, owners, writes};

trials! { "mirror":
    a_published_volume_becomes_a_secret,
    a_new_value_is_written_and_a_quiet_node_writes_nothing,
    a_secret_deleted_or_changed_by_hand_comes_back,
    a_changed_class_changes_the_secret,
    a_driver_mirrors_volumes_published_before_sync_was_enabled,
    a_terminating_or_finished_pod_writes_nothing,
    without_the_flag_no_secret_or_pod_is_requested,
}

/// The interval of tests that wait for a resync without a change.
const SOON: &str = "--secret-check-interval=1s";

fn a_published_volume_becomes_a_secret() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    let object = json!({
        "secretName": " shop ", "type": "Opaque", "labels": { "team": "web" }, "annotations": { "note": "n" },
        "data": [{ "objectName": " a ", "key": " username " }],
    });
    fixture.class("demo", &["a"], &json!([object]))?;
    let (node, user) = fixture.node("a", &[])?;
    let owner = fixture.replica_set("web")?;
    let pod = fixture.pod("web-1", "a", "demo", &owner)?;
    node.publish(&pod)?;
    let secret = fixture.holds("shop", "username", &value)?;
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret["metadata"]["labels"], json!({ "team": "web", "secrets-store.csi.k8s.io/managed": "true" }));
    assert_eq!(secret["metadata"]["annotations"]["note"], "n");
    assert_eq!(secret["metadata"]["annotations"]["keyvault-csi/class"], "demo");
    let expected = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": owner["uid"] }]);
    assert_eq!(secret["metadata"]["ownerReferences"], expected);
    assert_eq!(writes(fixture.cluster, &user)?, ["create"]);
    // The driver counts after the write.
    wait_for("the write is counted", PATIENCE, || Ok(node.metrics()?.contains("sync_k8s_secret_total{")))?;
    let metrics = node.metrics()?;
    harness().remember(&metrics);
    let written = metrics.lines().find(|line| line.starts_with("sync_k8s_secret_total{")).context("no such metric")?;
    ensure!(written.contains("os_type=\"linux\"") && written.contains("provider=\"azure\"") && written.ends_with(" 1"));
    ensure!(metrics.contains("sync_k8s_secret_duration_sec_bucket{"), "{metrics}");
    Ok(())
}

fn a_new_value_is_written_and_a_quiet_node_writes_nothing() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, user) = fixture.node("a", &[SOON])?;
    let pod = fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?;
    let mut last = String::new();
    for _ in 0..5 {
        let value = fixture.vault.set("a");
        node.publish(&pod)?;
        last = fixture.holds("shop", "k", &value)?["metadata"]["resourceVersion"].to_string();
        node.kubelet.unpublish(&pod)?;
    }
    node.publish(&pod)?;
    let before = writes(fixture.cluster, &user)?;
    assert_eq!(before, ["create", "patch", "patch", "patch", "patch"]);
    // Neither the same value, published again, nor several resyncs cause a write.
    let gets = fixture.cluster.count(&user, "get", "secrets")?;
    wait_for("some resyncs", PATIENCE, || Ok(fixture.cluster.count(&user, "get", "secrets")? >= gets + 3))?;
    assert_eq!(writes(fixture.cluster, &user)?, before);
    assert_eq!(fixture.there("shop")?["metadata"]["resourceVersion"].to_string(), last);
    Ok(())
}

fn a_secret_deleted_or_changed_by_hand_comes_back() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, _) = fixture.node("a", &[SOON])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    let first = fixture.holds("shop", "k", &value)?;
    fixture.delete(SECRETS, "shop")?;
    let second = fixture.holds("shop", "k", &value)?;
    ensure!(first["metadata"]["uid"] != second["metadata"]["uid"]);
    // A key is changed, added, and removed: ours is restored, and another manager's stays.
    fixture.merge(SECRETS, "shop", &json!({ "data": { "k": "b3RoZXI=", "more": "bW9yZQ==" } }))?;
    let restored = fixture.holds("shop", "k", &value)?;
    assert_eq!(decoded(&restored, "more").as_deref(), Some("more"));
    fixture.merge(SECRETS, "shop", &json!({ "data": { "k": null } }))?;
    fixture.holds("shop", "k", &value)?;
    Ok(())
}

fn a_changed_class_changes_the_secret() -> Result<()> {
    let fixture = Fixture::new()?;
    let (a, b) = (fixture.vault.set("a"), fixture.vault.set("b"));
    fixture.class("demo", &["a", "b"], &json!([]))?;
    let (node, user) = fixture.node("a", &[])?;
    node.publish(&fixture.pod("web-1", "a", "demo", &fixture.replica_set("web")?)?)?;
    let mut object = opaque("shop", &[("a", "first"), ("b", "second")]);
    object["labels"] = json!({ "old": "label" });
    fixture.change_class("demo", &json!({ "spec": { "secretObjects": [object] } }))?;
    fixture.holds("shop", "second", &b)?;
    // A key and a label are removed, although they were set by the creation.
    let mut object = opaque("shop", &[("a", "first")]);
    object["annotations"] = json!({ "new": "annotation" });
    fixture.change_class("demo", &json!({ "spec": { "secretObjects": [object] } }))?;
    wait_for("the key is removed", PATIENCE, || Ok(decoded(&fixture.there("shop")?, "second").is_none()))?;
    let secret = fixture.there("shop")?;
    assert_eq!(decoded(&secret, "first"), Some(a));
    ensure!(secret["metadata"]["labels"]["old"].is_null(), "{}", secret["metadata"]["labels"]);
    assert_eq!(secret["metadata"]["annotations"]["new"], "annotation");
    assert_eq!(owners(&secret).len(), 1);
    assert_eq!(writes(fixture.cluster, &user)?, ["create", "patch", "patch"]);
    Ok(())
}

fn a_driver_mirrors_volumes_published_before_sync_was_enabled() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let user = fixture.cluster.user(Rights::Sync)?;
    let node = Node::start(fixture.setup(&user, "a", std::iter::empty()))?;
    let pod = fixture.pod("web-1", "a", "demo", &Value::Null)?;
    node.publish(&pod)?;
    wait_for("the status exists", PATIENCE, || {
        Ok(fixture.cluster.count(&user, "create", "secretproviderclasspodstatuses")? == 1)
    })?;
    assert_eq!(fixture.cluster.count(&user, "get", "secrets")?, 0);
    let mut setup = node.driver.kill()?;
    setup.flags.extend(["--sync-secret", SOON].map(str::to_owned));
    let node = Node::start(setup)?;
    let secret = fixture.holds("shop", "k", &value)?;
    // A bare pod: the status object owns the Secret.
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "SecretProviderClassPodStatus");
    // After another restart it reads the Secret and writes nothing.
    let before = writes(fixture.cluster, &user)?;
    let gets = fixture.cluster.count(&user, "get", "secrets")?;
    let _node = Node::start(node.driver.kill()?)?;
    // The first reconcile would write; the resyncs follow it.
    wait_for("some resyncs", PATIENCE, || Ok(fixture.cluster.count(&user, "get", "secrets")? >= gets + 3))?;
    assert_eq!(writes(fixture.cluster, &user)?, before);
    Ok(())
}

fn a_terminating_or_finished_pod_writes_nothing() -> Result<()> {
    let fixture = Fixture::new()?;
    let value = fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, user) = fixture.node("a", &[SOON])?;
    let owner = fixture.replica_set("web")?;
    let terminating = fixture.pod("terminating", "a", "demo", &owner)?;
    fixture.merge(PODS, "terminating", &json!({ "metadata": { "finalizers": ["example.org/wait"] } }))?;
    fixture.delete(PODS, "terminating")?;
    node.publish(&terminating)?;
    let finished = fixture.pod("finished", "a", "demo", &owner)?;
    let api = fixture.cluster.api(PODS, Some(&fixture.namespace));
    let status = kube::api::Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
    fixture.cluster.block_on(api.patch_status("finished", &kube::api::PatchParams::default(), &status))?;
    node.publish(&finished)?;
    // A running pod of another class shows that the driver has had the time to write.
    fixture.class("other", &["a"], &json!([opaque("mark", &[("a", "k")])]))?;
    node.publish(&fixture.pod("running", "a", "other", &owner)?)?;
    fixture.holds("mark", "k", &value)?;
    let gets = fixture.cluster.count(&user, "get", "secrets")?;
    wait_for("some resyncs", PATIENCE, || Ok(fixture.cluster.count(&user, "get", "secrets")? >= gets + 2))?;
    ensure!(fixture.secret("shop")?.is_none());
    Ok(())
}

fn without_the_flag_no_secret_or_pod_is_requested() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.vault.set("a");
    fixture.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let user = fixture.cluster.user(Rights::Sync)?;
    let node = Node::start(fixture.setup(&user, "a", ["--sync-secret=false"].into_iter()))?;
    node.publish(&fixture.pod("web-1", "a", "demo", &Value::Null)?)?;
    wait_for("the status exists", PATIENCE, || {
        Ok(fixture.cluster.count(&user, "create", "secretproviderclasspodstatuses")? == 1)
    })?;
    let calls = fixture.cluster.calls(&user)?;
    ensure!(!calls.iter().any(|call| ["secrets", "pods"].contains(&call.resource.as_str())), "{calls:?}");
    Ok(())
}
