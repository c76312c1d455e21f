//! The mirror into Kubernetes Secrets, on a real API server: what is written, when, and what never is.

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use serde_json::{Value, json};

use crate::apiserver::Rights;
use crate::lab::{Node, lab};
use crate::mirror_scene::{PATIENCE, PODS, SECRETS, Scene, decoded, opaque, owners, writes};

trials! { "mirror":
    a_published_volume_becomes_a_secret,
    a_new_value_follows_and_a_quiet_node_writes_nothing,
    a_secret_deleted_or_changed_by_hand_comes_back,
    a_change_of_the_class_is_followed,
    a_driver_that_mirrors_later_takes_what_was_published_before,
    an_ending_pod_writes_nothing,
    without_the_flag_nothing_is_asked,
}

/// The interval of tests that wait for a look at what is as it should be.
const SOON: &str = "--secret-check-interval=1s";

fn a_published_volume_becomes_a_secret() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    let object = json!({
        "secretName": " shop ", "type": "Opaque", "labels": { "team": "web" }, "annotations": { "note": "n" },
        "data": [{ "objectName": " a ", "key": " username " }],
    });
    scene.class("demo", &["a"], &json!([object]))?;
    let (node, user) = scene.node("a", &[])?;
    let owner = scene.replica_set("web")?;
    let pod = scene.pod("web-1", "a", "demo", &owner)?;
    node.publish(&pod)?;
    let secret = scene.holds("shop", "username", &value)?;
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret["metadata"]["labels"], json!({ "team": "web", "secrets-store.csi.k8s.io/managed": "true" }));
    assert_eq!(secret["metadata"]["annotations"]["note"], "n");
    assert_eq!(secret["metadata"]["annotations"]["keyvault-csi/class"], "demo");
    let expected = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": owner["uid"] }]);
    assert_eq!(secret["metadata"]["ownerReferences"], expected);
    assert_eq!(writes(scene.cluster, &user)?, ["create"]);
    // The Secret is seen before it is counted.
    wait_for("it is counted", PATIENCE, || Ok(node.metrics()?.contains("sync_k8s_secret_total{")))?;
    let metrics = node.metrics()?;
    lab().remember(&metrics);
    let written = metrics.lines().find(|line| line.starts_with("sync_k8s_secret_total{")).context("no such metric")?;
    ensure!(written.contains("os_type=\"linux\"") && written.contains("provider=\"azure\"") && written.ends_with(" 1"));
    ensure!(metrics.contains("sync_k8s_secret_duration_sec_bucket{"), "{metrics}");
    Ok(())
}

fn a_new_value_follows_and_a_quiet_node_writes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, user) = scene.node("a", &[SOON])?;
    let pod = scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?;
    let mut last = String::new();
    for _ in 0..5 {
        let value = scene.vault.set("a");
        node.publish(&pod)?;
        last = scene.holds("shop", "k", &value)?["metadata"]["resourceVersion"].to_string();
        node.kubelet.unpublish(&pod)?;
    }
    node.publish(&pod)?;
    let before = writes(scene.cluster, &user)?;
    assert_eq!(before, ["create", "patch", "patch", "patch", "patch"]);
    // Several looks later nothing was written, neither for the same value published again nor for the time that passed.
    let looks = scene.cluster.count(&user, "get", "secrets")?;
    wait_for("it looks again", PATIENCE, || Ok(scene.cluster.count(&user, "get", "secrets")? >= looks + 3))?;
    assert_eq!(writes(scene.cluster, &user)?, before);
    assert_eq!(scene.there("shop")?["metadata"]["resourceVersion"].to_string(), last);
    Ok(())
}

fn a_secret_deleted_or_changed_by_hand_comes_back() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, _) = scene.node("a", &[SOON])?;
    node.publish(&scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?)?;
    let first = scene.holds("shop", "k", &value)?;
    scene.delete(SECRETS, "shop")?;
    let second = scene.holds("shop", "k", &value)?;
    ensure!(first["metadata"]["uid"] != second["metadata"]["uid"]);
    // Changed, removed, and added to: ours comes back, and what others added stays.
    scene.merge(SECRETS, "shop", &json!({ "data": { "k": "b3RoZXI=", "more": "bW9yZQ==" } }))?;
    let mended = scene.holds("shop", "k", &value)?;
    assert_eq!(decoded(&mended, "more").as_deref(), Some("more"));
    scene.merge(SECRETS, "shop", &json!({ "data": { "k": null } }))?;
    scene.holds("shop", "k", &value)?;
    Ok(())
}

fn a_change_of_the_class_is_followed() -> Result<()> {
    let scene = Scene::new()?;
    let (a, b) = (scene.vault.set("a"), scene.vault.set("b"));
    scene.class("demo", &["a", "b"], &json!([]))?;
    let (node, user) = scene.node("a", &[])?;
    node.publish(&scene.pod("web-1", "a", "demo", &scene.replica_set("web")?)?)?;
    let mut object = opaque("shop", &[("a", "first"), ("b", "second")]);
    object["labels"] = json!({ "old": "label" });
    scene.change_class("demo", &json!({ "spec": { "secretObjects": [object] } }))?;
    scene.holds("shop", "second", &b)?;
    // A key and a label that go: what came by the creation goes too.
    let mut object = opaque("shop", &[("a", "first")]);
    object["annotations"] = json!({ "new": "annotation" });
    scene.change_class("demo", &json!({ "spec": { "secretObjects": [object] } }))?;
    wait_for("the key goes", PATIENCE, || Ok(decoded(&scene.there("shop")?, "second").is_none()))?;
    let secret = scene.there("shop")?;
    assert_eq!(decoded(&secret, "first"), Some(a));
    ensure!(secret["metadata"]["labels"]["old"].is_null(), "{}", secret["metadata"]["labels"]);
    assert_eq!(secret["metadata"]["annotations"]["new"], "annotation");
    assert_eq!(owners(&secret).len(), 1);
    assert_eq!(writes(scene.cluster, &user)?, ["create", "patch", "patch"]);
    Ok(())
}

fn a_driver_that_mirrors_later_takes_what_was_published_before() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let user = scene.cluster.user(Rights::Sync)?;
    let node = Node::start(scene.setup(&user, "a", std::iter::empty()))?;
    let pod = scene.pod("web-1", "a", "demo", &Value::Null)?;
    node.publish(&pod)?;
    wait_for("the status is there", PATIENCE, || {
        Ok(scene.cluster.count(&user, "create", "secretproviderclasspodstatuses")? == 1)
    })?;
    assert_eq!(scene.cluster.count(&user, "get", "secrets")?, 0);
    let mut setup = node.driver.kill()?;
    setup.flags.extend(["--sync-secret", SOON].map(str::to_owned));
    let node = Node::start(setup)?;
    let secret = scene.holds("shop", "k", &value)?;
    // A bare pod: the status object owns the Secret.
    let owner = &secret["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "SecretProviderClassPodStatus");
    // Restarted once more, it reads and writes nothing.
    let before = writes(scene.cluster, &user)?;
    let looks = scene.cluster.count(&user, "get", "secrets")?;
    let _node = Node::start(node.driver.kill()?)?;
    // The first look reads it whole, and would write; the others come after that.
    wait_for("it looks again", PATIENCE, || Ok(scene.cluster.count(&user, "get", "secrets")? >= looks + 3))?;
    assert_eq!(writes(scene.cluster, &user)?, before);
    Ok(())
}

fn an_ending_pod_writes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let value = scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let (node, user) = scene.node("a", &[SOON])?;
    let owner = scene.replica_set("web")?;
    let ending = scene.pod("ending", "a", "demo", &owner)?;
    scene.merge(PODS, "ending", &json!({ "metadata": { "finalizers": ["example.org/wait"] } }))?;
    scene.delete(PODS, "ending")?;
    node.publish(&ending)?;
    let finished = scene.pod("finished", "a", "demo", &owner)?;
    let api = scene.cluster.api(PODS, Some(&scene.namespace));
    let status = kube::api::Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
    scene.cluster.block_on(api.patch_status("finished", &kube::api::PatchParams::default(), &status))?;
    node.publish(&finished)?;
    // A live pod of another class marks the time.
    scene.class("other", &["a"], &json!([opaque("mark", &[("a", "k")])]))?;
    node.publish(&scene.pod("live", "a", "other", &owner)?)?;
    scene.holds("mark", "k", &value)?;
    let looks = scene.cluster.count(&user, "get", "secrets")?;
    wait_for("it looks again", PATIENCE, || Ok(scene.cluster.count(&user, "get", "secrets")? >= looks + 2))?;
    ensure!(scene.secret("shop")?.is_none());
    Ok(())
}

fn without_the_flag_nothing_is_asked() -> Result<()> {
    let scene = Scene::new()?;
    scene.vault.set("a");
    scene.class("demo", &["a"], &json!([opaque("shop", &[("a", "k")])]))?;
    let user = scene.cluster.user(Rights::Sync)?;
    let node = Node::start(scene.setup(&user, "a", ["--sync-secret=false"].into_iter()))?;
    node.publish(&scene.pod("web-1", "a", "demo", &Value::Null)?)?;
    wait_for("the status is there", PATIENCE, || {
        Ok(scene.cluster.count(&user, "create", "secretproviderclasspodstatuses")? == 1)
    })?;
    let calls = scene.cluster.calls(&user)?;
    ensure!(!calls.iter().any(|call| ["secrets", "pods"].contains(&call.resource.as_str())), "{calls:?}");
    Ok(())
}
